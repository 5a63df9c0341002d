//! Tables for people.

use super::exit::Failure;
use super::screen::Screen;

/// Rows in columns that are as wide as their widest cell.
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: impl IntoIterator<Item = &'static str>) -> Self {
        Self { head: head.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row, with one cell for each column. A cell is one line: line ends are shown as a blank.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| cell.replace(['\n', '\r'], " ")).collect();
        assert_eq!(cells.len(), self.head.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    pub(super) fn print(&self, screen: &Screen) -> Result<(), Failure> {
        self.lines().iter().try_for_each(|line| screen.result(line))
    }

    fn lines(&self) -> Vec<String> {
        let head: Vec<String> = self.head.iter().map(|name| name.to_uppercase()).collect();
        let width = |cell: &String| cell.chars().count();
        let all = || std::iter::once(&head).chain(&self.rows);
        let widths: Vec<usize> =
            (0..head.len()).map(|column| all().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let padded = row.iter().zip(&widths).map(|(cell, most)| format!("{cell:most$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        all().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["key", "value"]);
        table.row(["ä".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned(), "two\nlines".to_owned()]);
        assert_eq!(table.lines(), ["KEY     VALUE", "ä       1", "longer  two lines"]);
    }
}
