//! When enough archivers have answered.
//!
//! Owns: counting. Each database needs one of its archives to have the tag; the others are waited for only for a while. Pure.

/// What is known of each database's archivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally(Vec<Of>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Of {
    open: usize,
    has: bool,
}

impl Of {
    const fn is_hopeless(&self) -> bool {
        !self.has && self.open == 0
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Some database has no tag yet, and somebody to wait for.
    Wait,
    /// All databases have it; further archives may still get it.
    WaitForOthers,
    /// Everybody has answered, and all databases have it.
    Done,
    /// A database can no longer get it.
    Hopeless,
}

impl Tally {
    /// So many archivers were asked for each database.
    pub fn new(asked: impl IntoIterator<Item = usize>) -> Self {
        Self(asked.into_iter().map(|open| Of { open, has: false }).collect())
    }

    /// One of a database's archivers has answered.
    pub fn answered(&mut self, database: usize, has: bool) {
        if let Some(of) = self.0.get_mut(database) {
            of.open = of.open.saturating_sub(1);
            of.has |= has;
        }
    }

    /// Whether this database can no longer get it.
    pub fn is_hopeless(&self, database: usize) -> bool {
        self.0.get(database).is_some_and(Of::is_hopeless)
    }

    /// What follows now.
    pub fn next(&self) -> Next {
        let all = self.0.iter().all(|of| of.has);
        let hopeless = self.0.iter().any(Of::is_hopeless);
        match (all, hopeless) {
            (_, true) => Next::Hopeless,
            (true, false) if self.0.iter().all(|of| of.open == 0) => Next::Done,
            (true, false) => Next::WaitForOthers,
            (false, false) => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_needs_one_of_its_archivers_and_the_first_that_has_none_left_ends_it() {
        let mut tally = Tally::new([1, 2]);
        assert_eq!(tally.next(), Next::Wait);
        tally.answered(1, false);
        assert_eq!(tally.next(), Next::Wait, "its other archive may have it");
        tally.answered(0, true);
        assert_eq!(tally.next(), Next::Wait);
        let mut hopeless = tally.clone();
        hopeless.answered(1, false);
        assert_eq!(hopeless.next(), Next::Hopeless);
        assert!(hopeless.is_hopeless(1) && !hopeless.is_hopeless(0));
        tally.answered(1, true);
        assert_eq!(tally.next(), Next::Done);
    }

    #[test]
    fn further_archives_are_waited_for_when_all_databases_have_it() {
        let mut tally = Tally::new([2, 1]);
        tally.answered(0, true);
        tally.answered(1, true);
        assert_eq!(tally.next(), Next::WaitForOthers);
        tally.answered(0, false);
        assert_eq!(tally.next(), Next::Done);
    }
}
