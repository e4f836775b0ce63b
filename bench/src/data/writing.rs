//! Writes the rows of a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};

use anyhow::Result;
use carga_testkit::fixtures;

use super::{Shape, Variant, columns, wide_types};

/// Writes a header, and then the rows.
pub(super) fn write(
    file: &mut impl Write,
    shape: Shape,
    variant: Variant,
    rows: u64,
) -> Result<()> {
    let columns = columns(shape, variant);
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    writeln!(file, "{}", names.join(","))?;
    if shape == Shape::Flights {
        return write_flights(file, variant, rows);
    }
    let mut random = Random(match variant {
        Variant::Plain | Variant::Keyed => 0x9e37_79b9_7f4a_7c15,
        Variant::Earlier => 0x2545_f491_4f6c_dd1d,
    });
    for row in 1..=rows {
        write_key(file, variant, row)?;
        match shape {
            Shape::Narrow => write_narrow(file, row, &mut random)?,
            Shape::Wide => write_wide(file, &mut random)?,
            Shape::Quoted => write_quoted(file, row, &mut random)?,
            Shape::Flights => {}
        }
    }
    Ok(())
}

fn write_key(file: &mut impl Write, variant: Variant, row: u64) -> Result<()> {
    match variant {
        Variant::Plain => {}
        Variant::Keyed | Variant::Earlier => write!(file, "{row},")?,
    }
    Ok(())
}

fn write_flights(file: &mut impl Write, variant: Variant, rows: u64) -> Result<()> {
    let open = || -> Result<_> {
        Ok(BufReader::with_capacity(
            1 << 20,
            File::open(fixtures::flights()?)?,
        ))
    };
    let mut source = open()?;
    let mut line = Vec::new();
    source.read_until(b'\n', &mut line)?;
    if variant == Variant::Earlier {
        // Each row has the values of the next flight. No flight is equal to the next one.
        source.read_until(b'\n', &mut line)?;
    }
    let mut row = 1;
    while row <= rows {
        line.clear();
        if source.read_until(b'\n', &mut line)? == 0 {
            source = open()?;
            source.read_until(b'\n', &mut line)?;
            continue;
        }
        write_key(file, variant, row)?;
        file.write_all(&line)?;
        row += 1;
    }
    Ok(())
}

fn write_narrow(file: &mut impl Write, row: u64, random: &mut Random) -> Result<()> {
    writeln!(
        file,
        "{row},{:06X},{},{}.{:02},{},2024-{:02}-{:02},{},{},0.{:04},{}",
        random.below(1 << 24),
        random.below(2) == 1,
        random.below(1000),
        random.below(100),
        random.below(50),
        1 + random.below(12),
        1 + random.below(28),
        random.word(),
        random.word(),
        random.below(10_000),
        random.word(),
    )?;
    Ok(())
}

fn write_wide(file: &mut impl Write, random: &mut Random) -> Result<()> {
    for (index, kind) in wide_types().enumerate() {
        if index > 0 {
            file.write_all(b",")?;
        }
        match kind {
            "integer" => write!(file, "{}", random.below(1_000_000))?,
            "text" => file.write_all(random.word().as_bytes())?,
            _ => write!(file, "{}.{:02}", random.below(1000), random.below(100))?,
        }
    }
    file.write_all(b"\n")?;
    Ok(())
}

fn write_quoted(file: &mut impl Write, row: u64, random: &mut Random) -> Result<()> {
    write!(
        file,
        "{row},\"{}, {}\",2024-{:02}-{:02},\"{} \"\"{}\"\" {}\",\"",
        random.word(),
        random.word(),
        1 + random.below(12),
        1 + random.below(28),
        random.word(),
        random.word(),
        random.word(),
    )?;
    write_text(file, 24, random)?;
    file.write_all(b"\",\"")?;
    write_text(file, 12, random)?;
    file.write_all(b"\"\n")?;
    Ok(())
}

/// Writes words, with a newline after about every eighth.
fn write_text(file: &mut impl Write, words: u64, random: &mut Random) -> Result<()> {
    for word in 0..words {
        let separator = match (word, random.below(8)) {
            (0, _) => "",
            (_, 0) => ",\n",
            _ => " ",
        };
        file.write_all(separator.as_bytes())?;
        file.write_all(random.word().as_bytes())?;
    }
    Ok(())
}

/// xorshift64 (Marsaglia, "Xorshift RNGs", 2003), which generates the same files on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 16] = [
            "amber", "bay", "cedar", "delta", "ember", "fjord", "grove", "harbour", "isle",
            "juniper", "kelp", "lagoon", "meadow", "north", "orchard", "Zürich",
        ];
        WORDS[self.below(WORDS.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(shape: Shape, variant: Variant) -> Vec<String> {
        let mut file = Vec::new();
        write(&mut file, shape, variant, 100).unwrap();
        let file = String::from_utf8(file).unwrap();
        file.lines().map(str::to_owned).collect()
    }

    /// Without `Quoted`, whose rows have several lines.
    const SHAPES: [Shape; 3] = [Shape::Narrow, Shape::Flights, Shape::Wide];

    #[test]
    fn a_keyed_file_has_the_plain_rows_behind_their_numbers() {
        for shape in SHAPES {
            let plain = lines(shape, Variant::Plain);
            let mut expected = vec![format!("row_id,{}", plain[0])];
            expected.extend((1..=100).map(|row| format!("{row},{}", plain[row])));
            assert_eq!(lines(shape, Variant::Keyed), expected);
        }
    }

    #[test]
    fn an_earlier_file_has_the_same_keys_and_other_values_in_every_row() {
        for shape in SHAPES {
            let keyed = lines(shape, Variant::Keyed);
            let earlier = lines(shape, Variant::Earlier);
            assert_eq!(earlier.len(), keyed.len());
            assert_eq!(earlier[0], keyed[0]);
            for (one, other) in earlier[1..].iter().zip(&keyed[1..]) {
                let (key, values) = one.split_once(',').unwrap();
                let (expected_key, later_values) = other.split_once(',').unwrap();
                assert_eq!(key, expected_key);
                assert_ne!(values, later_values);
            }
        }
    }
}
