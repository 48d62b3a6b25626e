//! What stands for what: one character a thing.
//!
//! Owns: the characters, in Unicode and in ASCII, and which of the two a locale can show.

/// Which characters can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Lines and blocks.
    Unicode,
    /// What every terminal has.
    Ascii,
}

/// A thing that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyph {
    /// A stretch that can be restored.
    Restorable,
    /// A stretch of log that a plan replays.
    Replayed,
    /// A stretch that cannot be restored.
    Lost,
    /// Where a timeline left its parent.
    Fork,
    /// Between where a timeline left its parent and its own beginning.
    Apart,
    /// A base.
    Base,
    /// The base of a plan.
    Chosen,
    /// Where a tag is.
    Tag,
    /// Where a plan arrives.
    Target,
    /// Where a barrier is.
    Barrier,
    /// From a place to its name.
    Pole,
    /// Where a pole bends to a name on the right.
    Right(Bend),
    /// The same to the left.
    Left(Bend),
    /// The axis.
    Axis,
    /// A round moment on it.
    Mark,
}

/// How a pole bends to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// It comes from below and ends.
    Top,
    /// It comes from above and ends.
    Bottom,
    /// It goes on, to another name.
    On,
}

/// How many shades there are, nothing included.
pub const SHADES: usize = 9;

impl Glyphs {
    /// By the values of `LC_ALL`, `LC_CTYPE` and `LANG`, of which the first that is not empty counts.
    pub fn of_locale(values: [Option<String>; 3]) -> Self {
        let counts = values.into_iter().flatten().find(|value| !value.is_empty()).unwrap_or_default();
        let counts = counts.to_ascii_lowercase();
        if counts.contains("utf-8") || counts.contains("utf8") { Self::Unicode } else { Self::Ascii }
    }

    /// The character for a thing.
    pub const fn of(self, glyph: Glyph) -> char {
        let (unicode, ascii) = match glyph {
            Glyph::Restorable => ('━', '='),
            Glyph::Replayed => ('█', '#'),
            Glyph::Lost => ('·', '.'),
            Glyph::Fork => ('└', '`'),
            Glyph::Apart => ('┄', '-'),
            Glyph::Base => ('◆', 'o'),
            Glyph::Chosen => ('◉', '@'),
            Glyph::Tag => ('▾', 'v'),
            Glyph::Target => ('▼', 'V'),
            Glyph::Barrier => ('╳', 'X'),
            Glyph::Pole => ('│', '|'),
            Glyph::Right(Bend::Top) => ('┌', '|'),
            Glyph::Right(Bend::Bottom) => ('└', '|'),
            Glyph::Right(Bend::On) => ('├', '|'),
            Glyph::Left(Bend::Top) => ('┐', '|'),
            Glyph::Left(Bend::Bottom) => ('┘', '|'),
            Glyph::Left(Bend::On) => ('┤', '|'),
            Glyph::Axis => ('─', '-'),
            Glyph::Mark => ('┬', '+'),
        };
        match self {
            Self::Unicode => unicode,
            Self::Ascii => ascii,
        }
    }

    /// From nothing to most.
    pub const fn shades(self) -> [char; SHADES] {
        match self {
            Self::Unicode => [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            Self::Ascii => [' ', '.', ':', '-', '~', '+', '*', '%', '#'],
        }
    }

    /// The branch of a tree, which is drawn in Unicode.
    pub fn branch(self, branch: &str) -> String {
        match self {
            Self::Unicode => branch.to_owned(),
            Self::Ascii => branch.replace('└', "`").replace(['├', '│'], "|").replace('─', "-"),
        }
    }

    /// The beginning of a name that is too long.
    pub fn shortened(self, name: &str, width: usize) -> String {
        let mut kept: String = name.chars().take(width).collect();
        if kept.len() < name.len() {
            kept.pop();
            kept.push(match self {
                Self::Unicode => '…',
                Self::Ascii => '~',
            });
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_that_is_set_counts() {
        for (values, glyphs) in [
            (["", "", "en_US.UTF-8"], Glyphs::Unicode),
            (["C", "", "en_US.UTF-8"], Glyphs::Ascii),
            (["", "C.utf8", "C"], Glyphs::Unicode),
            (["", "POSIX", "de_DE.UTF-8"], Glyphs::Ascii),
            (["", "", "de_DE.ISO-8859-1"], Glyphs::Ascii),
        ] {
            assert_eq!(Glyphs::of_locale(values.map(|value| Some(value.to_owned()))), glyphs, "{values:?}");
        }
        assert_eq!(Glyphs::of_locale([None, None, None]), Glyphs::Ascii);
    }
}
