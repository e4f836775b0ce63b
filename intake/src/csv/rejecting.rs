//! Turns records that are not rows into rejected rows.

use carga_common::rejects::RejectedRow;

use super::broken::{Broken, BrokenKind, Position};
use super::fault::{Exceeded, Rejection, RowFault, describe_broken};
use super::limits::Limit;
use super::reading::Reading;
use super::syntax::Field;

impl Reading {
    /// The current record as a rejected row.
    pub(super) fn rejected(&self, row: u64, fault: RowFault) -> Rejection {
        let Position { line, offset } = self.position();
        let fields = fault.fits.then(|| {
            if self.is_blank {
                return vec![String::new()];
            }
            let stored = |(index, field): (usize, &Field)| {
                let stores = self.header.stores(index);
                stores.then(|| self.escaped(&self.cell_bytes(field)))
            };
            let fields = self.fields().iter().enumerate();
            fields.filter_map(stored).collect()
        });
        let column = fault.field.and_then(|field| self.header.column_of(field));
        let row = RejectedRow {
            row,
            line,
            offset,
            column: column.map(str::to_owned),
            code: fault.code.to_owned(),
            constraint: None,
            message: fault.message,
            raw: fields.is_none().then(|| {
                let original = fault.original;
                original.unwrap_or_else(|| self.escaped(self.records.record()))
            }),
            fields,
        };
        Rejection {
            row,
            exceeded: fault.exceeded,
        }
    }

    /// A broken record as a rejected row.
    pub(super) fn rejected_broken(&self, row: u64, broken: Broken, limit: Limit) -> Rejection {
        let (code, mut message) = describe_broken(broken.kind, "row", limit);
        let actual = broken.kind.actual_bytes();
        let column = match broken.kind {
            BrokenKind::StrayQuote { field } => self.header.column_of(field),
            _ => None,
        };
        if actual.is_some() {
            message.push_str("; only its beginning is kept");
        }
        let row = RejectedRow {
            row,
            line: broken.position.line,
            offset: broken.position.offset,
            column: column.map(str::to_owned),
            code: code.to_owned(),
            constraint: None,
            message,
            raw: Some(self.escaped(&broken.bytes)),
            fields: None,
        };
        Rejection {
            row,
            exceeded: actual.map(|actual| Exceeded::new(limit, actual)),
        }
    }
}
