//! Lines of cells, each with its ink, and words that are wrapped.
//!
//! Owns: that nothing is ever written beyond the width. Every character is one column wide.

/// What a cell says, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Nothing in particular.
    Plain,
    /// A name.
    Strong,
    /// What can be restored.
    Good,
    /// What was asked for.
    Look,
    /// What cannot be crossed.
    Bad,
    /// What is only there for orientation.
    Faint,
}

/// A line of text: neighbours of one ink are one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<(Ink, String)>);

impl Line {
    fn push(&mut self, ink: Ink, text: &str) {
        match self.0.last_mut() {
            Some((same, before)) if *same == ink => before.push_str(text),
            _ => self.0.push((ink, text.to_owned())),
        }
    }

    /// Its text.
    #[cfg(test)]
    pub fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }
}

/// A row of cells.
#[derive(Clone, Debug)]
pub struct Strip(Vec<(char, Ink)>);

impl Strip {
    /// With nothing on it.
    pub fn new(width: usize) -> Self {
        Self(vec![(' ', Ink::Plain); width])
    }

    /// Puts a character into a cell.
    pub fn put(&mut self, column: usize, character: char, ink: Ink) {
        if let Some(cell) = self.0.get_mut(column) {
            *cell = (character, ink);
        }
    }

    /// Writes a text from a cell on.
    pub fn write(&mut self, column: usize, text: &str, ink: Ink) {
        for (index, character) in text.chars().enumerate() {
            self.put(column.saturating_add(index), character, ink);
        }
    }

    /// Whether these cells are there, and nothing is on them.
    pub fn is_free(&self, cells: std::ops::Range<usize>) -> bool {
        self.0.get(cells).is_some_and(|cells| cells.iter().all(|(character, _)| *character == ' '))
    }

    /// Whether a character is on it.
    pub fn has(&self, wanted: char) -> bool {
        self.0.iter().any(|(character, _)| *character == wanted)
    }

    /// Without the empty cells at its end.
    pub fn line(self) -> Line {
        let end = self.0.iter().rposition(|(character, _)| *character != ' ').map_or(0, |last| last + 1);
        let mut line = Line::default();
        for (character, ink) in self.0.into_iter().take(end) {
            line.push(ink, character.encode_utf8(&mut [0; 4]));
        }
        line
    }
}

/// Phrases on as many lines as they need, those behind the first indented. One that is too long is broken.
pub fn wrapped(phrases: impl IntoIterator<Item = (Ink, String)>, width: usize, indent: usize) -> Vec<Line> {
    let indent = indent.min(width / 2);
    let room = width.saturating_sub(indent).max(1);
    let mut text = Wrapping { width, indent, at: 0, line: Line::default(), lines: Vec::new() };
    for (ink, phrase) in phrases {
        if phrase.chars().count() <= room {
            text.add(ink, &phrase, "  ");
            continue;
        }
        for (index, word) in phrase.split(' ').enumerate() {
            let letters: Vec<char> = word.chars().collect();
            for (part, piece) in letters.chunks(room).enumerate() {
                let gap = match (index, part) {
                    (0, 0) => "  ",
                    (_, 0) => " ",
                    _ => "",
                };
                text.add(ink, &piece.iter().collect::<String>(), gap);
            }
        }
    }
    text.finish()
}

/// A text that is wrapped.
struct Wrapping {
    width: usize,
    indent: usize,
    at: usize,
    line: Line,
    lines: Vec<Line>,
}

impl Wrapping {
    fn add(&mut self, ink: Ink, piece: &str, gap: &str) {
        let length = piece.chars().count();
        let empty = self.line.0.is_empty();
        if !empty && self.at + gap.len() + length > self.width {
            self.lines.push(std::mem::take(&mut self.line));
            self.line.push(Ink::Plain, &" ".repeat(self.indent));
            self.at = self.indent;
        } else if !empty {
            self.line.push(Ink::Plain, gap);
            self.at += gap.len();
        }
        self.line.push(ink, piece);
        self.at += length;
    }

    fn finish(mut self) -> Vec<Line> {
        if !self.line.0.is_empty() {
            self.lines.push(self.line);
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_wrapped_and_broken_where_they_are_too_long() {
        let phrases =
            ["one", "two", "three", "four and fourteen-letters"].map(|phrase| (Ink::Plain, phrase.to_owned()));
        let lines: Vec<_> = wrapped(phrases, 10, 2).iter().map(Line::plain).collect();
        assert_eq!(lines, ["one  two", "  three", "  four and", "  fourteen", "  -letters"]);
        assert_eq!(wrapped([], 9, 2), []);
    }
}
