//! The types, with texts that are near to their values.

use anyhow::{Result, anyhow};
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::string::string_regex;

use super::reject_rules::{
    has_boolean_form, has_date_form, has_finer_fraction, has_integer_form,
    has_json_number_out_of_range, has_long_exponent, has_number_form, has_other_hyphens,
    has_other_second_or_hour, has_other_year, has_timestamp_form,
};

/// One type, by its names in definitions and in Postgres.
pub(super) struct Type {
    pub(super) carga: &'static str,
    pub(super) postgres: &'static str,
    pub(super) texts: BoxedStrategy<String>,
    /// Whether a rule of Carga rejects this text, from which Postgres has made this value.
    pub(super) is_rejected: fn(&str, &str) -> bool,
}

pub(super) fn types() -> Result<[Type; 8]> {
    Ok([
        integer()?,
        numeric()?,
        float()?,
        boolean()?,
        date()?,
        timestamp()?,
        uuid()?,
        json()?,
    ])
}

/// Texts by several patterns, each as often as the others.
fn by_patterns(patterns: &[&str]) -> Result<BoxedStrategy<String>> {
    let strategies = patterns.iter().map(|pattern| string_regex(pattern));
    let strategies: Result<Vec<_>, _> = strategies.collect();
    let strategies = strategies.map_err(|error| anyhow!("{error}"))?;
    Ok(Union::new(strategies).boxed())
}

fn integer() -> Result<Type> {
    Ok(Type {
        carga: "integer",
        postgres: "bigint",
        texts: by_patterns(&[
            "[ \t\n]?[-+]?[0-9]{1,20}[ \t\r]?",
            "[-+]?0{0,3}922337203685477580[5-9]",
            "[-+]{0,2}(0x|0b|0o)?[0-9a-f_]{0,6}",
            "[-+0-9., e]{0,6}",
        ])?,
        is_rejected: |text, _| !has_integer_form(text),
    })
}

fn numeric() -> Result<Type> {
    Ok(Type {
        carga: "numeric",
        postgres: "numeric",
        texts: by_patterns(&[
            "[ \t\n]?[-+]?[0-9]{0,30}\\.?[0-9]{0,30}[ \t\r]?",
            "[-+]?[0-9]{0,6}\\.?[0-9]{0,6}[eE][-+]?[0-9]{1,3}",
            "[-+]?[0-9]{0,3}\\.?[0-9]{0,3}e[-+]?[0-9]{4,6}",
            "[-+]?[0.]{1,8}(e[-+]?[0-9]{1,2})?",
            "[-+]?(nan|NaN|inf|Infinity|0x1f|1_000)",
            "[-+0-9.,eE_ x]{0,8}",
        ])?,
        is_rejected: |text, _| !has_number_form(text) || has_long_exponent(text),
    })
}

fn float() -> Result<Type> {
    Ok(Type {
        carga: "float",
        postgres: "double precision",
        texts: by_patterns(&[
            "[ \t\n]?[-+]?[0-9]{0,25}\\.?[0-9]{0,25}[ \t\r]?",
            "[-+]?[0-9]{0,3}\\.?[0-9]{0,20}[eE][-+]?[0-9]{1,3}",
            "[-+]?[0-9]{1,17}e[-+]?(29|30|32|33)[0-9]",
            "[-+]?[0.]{1,8}(e[-+]?[0-9]{1,4})?",
            "[-+]?(nan|NaN|inf|Infinity|0x1f|0x1p3|1_000)",
            "[-+0-9.,eE_ x]{0,8}",
        ])?,
        is_rejected: |text, _| !has_number_form(text),
    })
}

fn boolean() -> Result<Type> {
    Ok(Type {
        carga: "boolean",
        postgres: "boolean",
        texts: by_patterns(&[
            "[ \t\n]?(?i:true|t|yes|y|on|1|false|f|no|n|off|0)[ \t\r]?",
            "(?i:t(r(u)?)?|y(e)?|of?|f(a(l(s)?)?)?|2|00)",
            "[eFfn0oTt1ruy]{0,3}",
        ])?,
        is_rejected: |text, _| !has_boolean_form(text),
    })
}

fn date() -> Result<Type> {
    Ok(Type {
        carga: "date",
        postgres: "date",
        texts: by_patterns(&[
            "[ \t\n]?[0-2][0-9]{3}-[01][0-9]-[0-3][0-9][ \t\r]?",
            "[0-9]{4}-(02|04|06|11)-(28|29|30|31)",
            "[0-9]{1,5}[-/. ]?[0-9]{1,2}[-/. ]?[0-9]{1,4}",
            "epoch|today|infinity|May [0-9]{1,2} 2024|2024-Feb-[0-9]{2}|2024-01-01 (BC|10:00)",
        ])?,
        is_rejected: |text, _| !has_date_form(text),
    })
}

fn timestamp() -> Result<Type> {
    Ok(Type {
        carga: "timestamp",
        postgres: "timestamptz",
        texts: by_patterns(&[
            "[ \t\n]?[0-2][0-9]{3}-[01][0-9]-[0-2][0-9][ Tt][012][0-9]:[0-5][0-9](:[0-6][0-9](\\.[0-9]{1,8})?)?( ?([Zz]|[-+][01][0-9](:?[0-5][0-9])?))?[ \t\r]?",
            "2024-02-29[ T][01][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{0,6}0{0,4}( ?([Zz]|[-+][012][0-9](:?[0-6][0-9])?))?",
            "(0001-01-01|9999-12-31|0000-12-31|2023-12-31)[ T](00|23|24):(00|59)(:(00|59|60))?[-+](00|01|12|15|16):?(00|30)",
            "2024-02-(28|29|30|31)(T|t| |  )?([0-9]{1,2}(:[0-9]{1,2}){0,3})?(UTC| UTC|Z| [AP]M|[-+][0-9]{1,5})?",
            "epoch|infinity|20240229T[0-9]{6}Z?|May 3 2024 10:00|2024-02-29 10:00 America/Sao_Paulo",
        ])?,
        is_rejected: |text, value| {
            !has_timestamp_form(text)
                || has_other_second_or_hour(text)
                || has_finer_fraction(text)
                || has_other_year(value)
        },
    })
}

fn uuid() -> Result<Type> {
    Ok(Type {
        carga: "uuid",
        postgres: "uuid",
        texts: by_patterns(&[
            "[ {]?[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9A-F]{4}-[0-9a-f]{12}[} ]?",
            "[{]?[0-9a-fA-F]{32}[}]?",
            "([0-9a-f]{4}-?){8}",
            "([0-9a-f]{4}-?){7}[0-9a-f]{4}",
            "[0-9a-f-]{30,37}",
        ])?,
        is_rejected: |text, _| has_other_hyphens(text),
    })
}

fn json() -> Result<Type> {
    Ok(Type {
        carga: "json",
        postgres: "jsonb",
        texts: by_patterns(&[
            "[ \n]?[\\[{]?(\"[a-c\\\\\"nu0]{0,3}\"[:,]?|-?[0-9]{1,3}(\\.[0-9]{1,3})?([eE][-+]?[0-9]{1,3})?[,:]?|null|true){0,4}[\\]}]?[ \t\r]?",
            "\\{\"a\":(\\[[0-9]{0,2}\\]|\"\\\\u[0dD][08cC]{3}(\\\\u[dD][c-fC-F][0-9]{2})?\"|[01]{1,3}|-?[0-9]\\.[0-9]e[-+]?[0-9]{1,5})\\}",
            "\"[^\0]{0,4}\"",
        ])?,
        is_rejected: |text, _| has_json_number_out_of_range(text),
    })
}
