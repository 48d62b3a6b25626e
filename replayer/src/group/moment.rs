//! Whether states of several databases were there at one moment.
//!
//! Owns: the common part of their certain intervals. Pure.

use chrono::{DateTime, Utc};

/// The interval in which a database certainly was in a state, as far as somebody looked.
pub type Certain = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// The interval in which all of them certainly were; `None` where no moment is certain for all.
pub fn common(intervals: impl IntoIterator<Item = Certain>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let mut common: Option<(DateTime<Utc>, DateTime<Utc>)> = None;
    for (from, to) in intervals {
        let (from, to) = from.zip(to)?;
        common = Some(common.map_or((from, to), |(first, last)| (first.max(from), last.min(to))));
    }
    common.filter(|(from, to)| from <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_were_in_their_states_where_their_intervals_meet_and_nowhere_where_one_is_not_known() {
        let at = |second| DateTime::from_timestamp(second, 0);
        let of = |all: &[(i64, i64)]| {
            common(all.iter().map(|(from, to)| (at(*from), at(*to)))).map(|(a, b)| (a.timestamp(), b.timestamp()))
        };
        assert_eq!(of(&[(1, 5), (3, 9), (2, 4)]), Some((3, 4)));
        assert_eq!(of(&[(1, 3), (3, 9)]), Some((3, 3)));
        assert_eq!(of(&[(1, 2), (3, 9)]), None);
        assert_eq!(of(&[(1, 5)]), Some((1, 5)));
        assert_eq!(of(&[(5, 1)]), None, "nobody saw until when it stayed so");
        assert_eq!(common([(at(1), at(5)), (at(2), None)]), None);
        assert_eq!(common([]), None);
    }
}
