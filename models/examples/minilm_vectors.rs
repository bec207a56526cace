//! Embeds texts with a transformer file, for the training scripts: one JSON string a line on
//! standard input, little-endian floats on standard output. A text that the model refuses gives a
//! row of NaN.
//!
//! `cargo run --release --features minilm --example minilm_vectors -- FILE < texts > vectors`

use std::error::Error;
use std::io::{BufRead, Write};

use askonce_models::MiniLm;

/// Texts that are embedded together.
const BATCH: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let model = MiniLm::open(path)?;
    let texts = std::io::stdin()
        .lock()
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<Vec<String>, Box<dyn Error>>>()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for texts in texts.chunks(BATCH) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let rows = model.embed_sync(&texts).or_else(|_| {
            let mut rows = Vec::new();
            for text in texts {
                if model.embed_one(text, &mut rows).is_err() {
                    rows.extend(std::iter::repeat_n(f32::NAN, model.dimension()));
                }
            }
            Ok::<_, Box<dyn Error>>(rows)
        })?;
        for value in rows {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    out.flush()?;
    Ok(())
}
