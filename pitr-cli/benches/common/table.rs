//! Figures beside the lines that they are measured against.
//!
//! Owns: medians, the table that a person reads, and the same as one line of JSON in the file that `$BENCH_JSON` names.

use std::{fs::OpenOptions, io::Write as _};

use serde_json::{Value, json};

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

    fn json(&self) -> Value {
        match self {
            Self::AtLeast(least) => json!({ "at_least": least }),
            Self::AtMost(most) => json!({ "at_most": most }),
            Self::None => Value::Null,
        }
    }
}

struct Row {
    what: String,
    /// What was measured, round by round.
    values: Vec<f64>,
    unit: &'static str,
    line: Line,
}

impl Row {
    fn holds(&self) -> Option<bool> {
        self.line.holds(median(&self.values))
    }

    fn range(&self) -> (f64, f64) {
        let (least, most) = (f64::INFINITY, f64::NEG_INFINITY);
        self.values.iter().fold((least, most), |(least, most), v| (least.min(*v), most.max(*v)))
    }

    fn json(&self) -> Value {
        let (min, max) = self.range();
        json!({
            "what": self.what.trim(),
            "unit": self.unit,
            "median": median(&self.values),
            "min": min,
            "max": max,
            "values": self.values,
            "line": self.line.json(),
            "holds": self.holds(),
        })
    }
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
        self.spread(what, &[value], unit, line);
    }

    /// A figure of several rounds: the median counts, and the smallest and the greatest are shown.
    pub fn spread(&mut self, what: impl Into<String>, values: &[f64], unit: &'static str, line: Line) {
        self.rows.push(Row { what: what.into(), values: values.to_vec(), unit, line });
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints it; whether everything holds.
    pub fn print(&self) -> bool {
        println!("\n{}", self.title);
        for row in &self.rows {
            let Row { what, values, unit, line } = row;
            let promised = match line {
                Line::AtLeast(least) => format!("at least {least}"),
                Line::AtMost(most) => format!("at most {most}"),
                Line::None => String::new(),
            };
            let verdict = match row.holds() {
                None => "",
                Some(true) => "holds",
                Some(false) => "DOES NOT HOLD",
            };
            let range = match row.range() {
                (least, most) if values.len() > 1 => format!("{least:.3} to {most:.3}"),
                _ => String::new(),
            };
            let figure = median(values);
            let text = format!("  {what:<58} {figure:>12.3} {unit:<6} {promised:<16} {verdict:<13} {range}");
            println!("{}", text.trim_end());
        }
        self.notes.iter().for_each(|note| println!("  {note}"));
        let holds = self.rows.iter().all(|row| row.holds() != Some(false));
        if let Some(file) = std::env::var_os("BENCH_JSON") {
            let mut line = self.json(holds).to_string();
            line.push('\n');
            let file = OpenOptions::new().create(true).append(true).open(file);
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file that BENCH_JSON names");
        }
        holds
    }

    fn json(&self, holds: bool) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({
            "bench": env!("CARGO_CRATE_NAME"),
            "title": self.title,
            "holds": holds,
            "rows": rows,
            "notes": self.notes,
        })
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
