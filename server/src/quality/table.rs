//! Tables for a terminal.

use std::fmt::{self, Write};

use super::stats::Interval;

/// A share in percent; a dash where there is none.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

/// An interval in percent; a dash where there is none.
pub(crate) fn interval(interval: Option<Interval>) -> String {
    interval.map_or("-".to_owned(), |Interval { low, high }| {
        format!("{:.2}-{:.2}", low * 100.0, high * 100.0)
    })
}

/// Rows under a header; the first column is aligned left, the others right.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(header: [&str; N]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned)],
        }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    pub(crate) fn write(&self, out: &mut String) -> fmt::Result {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.rows {
            out.push_str("  ");
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                if column == 0 {
                    write!(out, "{cell:<width$}")?;
                } else {
                    write!(out, "  {cell:>width$}")?;
                }
            }
            out.push('\n');
        }
        Ok(())
    }
}
