//! Figures beside the lines that they are measured against.

/// What is promised of a figure.
pub enum Line {
    AtLeast(f64),
    AtMost(f64),
    /// Told, not promised.
    None,
}

impl Line {
    fn holds(&self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(value >= *least),
            Self::AtMost(most) => Some(value <= *most),
            Self::None => None,
        }
    }
}

struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    line: Line,
}

/// Rows under a title.
pub struct Table {
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), notes: Vec::new() }
    }

    pub fn row(&mut self, what: impl Into<String>, value: f64, unit: &'static str, line: Line) {
        self.rows.push(Row { what: what.into(), value, unit, line });
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints it; whether everything holds.
    pub fn print(&self) -> bool {
        println!("\n{}", self.title);
        let mut holds = true;
        for Row { what, value, unit, line } in &self.rows {
            let promised = match line {
                Line::AtLeast(least) => format!("at least {least}"),
                Line::AtMost(most) => format!("at most {most}"),
                Line::None => String::new(),
            };
            let verdict = match line.holds(*value) {
                None => "",
                Some(true) => "holds",
                Some(false) => "DOES NOT HOLD",
            };
            holds &= line.holds(*value) != Some(false);
            println!("  {what:<58} {value:>12.3} {unit:<6} {promised:<16} {verdict}");
        }
        self.notes.iter().for_each(|note| println!("  {note}"));
        holds
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The smallest that at least this share of them does not exceed.
pub fn quantile(of: &mut [f64], share: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    let rank = (of.len() as f64 * share).ceil() as usize;
    of.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}
