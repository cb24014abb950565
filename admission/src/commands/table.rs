//! Tables for terminals: columns as wide as they need to be, two spaces apart, as kubectl prints them.

use std::fmt;

/// Rows of cells under headings.
#[derive(Clone, Debug)]
pub struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet.
    pub fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row; it has a cell for every heading.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.headings.len());
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&headings]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        for row in [&headings].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &format!("{:width$}  ", printable(cell));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names in a cluster are harmless; annotations and messages need not be.
fn printable(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a".into(), "fine".into()]);
        table.row(["längster".into(), "x\u{1b}[2J".into()]);
        assert_eq!(table.to_string(), "NAME      STATE\na         fine\nlängster  x?[2J\n");
    }
}
