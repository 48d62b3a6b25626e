//! Tables that can be scanned by eye and cut by `awk`: no borders, one header line, two spaces between columns.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table as Grid, presets};

use super::Output;

/// A table being filled.
#[derive(Debug)]
pub struct Table {
    grid: Grid,
    rows: usize,
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// With these columns.
    pub fn new(output: &Output, columns: &[(&str, Align)]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING);
        if output.has_colour() {
            grid.enforce_styling();
        } else {
            grid.force_no_tty();
        }
        // A pipe gets every row on one line; a terminal gets long texts wrapped inside their column.
        grid.set_content_arrangement(match output.is_terminal() {
            true => ContentArrangement::Dynamic,
            false => ContentArrangement::Disabled,
        });
        grid.set_header(columns.iter().map(|(name, _)| Cell::new(name.to_uppercase()).add_attribute(Attribute::Bold)));
        for (index, (_, align)) in columns.iter().enumerate() {
            if let Some(column) = grid.column_mut(index) {
                column.set_padding((0, 2));
                column.set_cell_alignment(match align {
                    Align::Left => CellAlignment::Left,
                    Align::Right => CellAlignment::Right,
                });
            }
        }
        Self { grid, rows: 0 }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.grid.add_row(cells.into_iter().map(Cell::new));
        self.rows += 1;
    }

    /// How many rows it has.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<_> = self.grid.lines().map(|line| line.trim_end().to_owned()).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Columns of the terminal; `None` where there is none.
pub fn width(output: &Output) -> Option<u16> {
    if output.is_terminal() { Grid::new().width() } else { None }
}

/// Pairs of a label and a text, aligned: what a single thing looks like.
pub fn facts(output: &Output, pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let lines: Vec<_> = pairs
        .iter()
        .map(|(label, text)| {
            let label = format!("{label:<width$}");
            let indented = text.replace('\n', &format!("\n{}", " ".repeat(width + 2)));
            format!("{}  {indented}", output.heading(&label))
        })
        .collect();
    lines.join("\n")
}
