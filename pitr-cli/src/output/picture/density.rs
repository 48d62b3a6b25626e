//! How much was written, column by column.
//!
//! Owns: spreading what an entry of the catalog holds over the time in which it came. Nothing is lost or counted twice: what
//! lies inside the time that is drawn adds up.

use pitr_archive::clock::Micros;
use serde::Serialize;

use super::Span;

/// Records, and the bytes of their segments before compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    /// Both.
    pub const fn plus(self, other: Self) -> Self {
        Self { records: self.records.saturating_add(other.records), bytes: self.bytes.saturating_add(other.bytes) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { records: self.records.saturating_sub(other.records), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// The part of it that came within `part` of `whole` microseconds.
    fn share(self, part: u64, whole: u64) -> Self {
        let share = |n: u64| u64::try_from(u128::from(n) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(n);
        Self { records: share(self.records), bytes: share(self.bytes) }
    }
}

/// What came between two looks at the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Between them.
    pub span: Span,
    /// How much.
    pub amount: Amount,
}

/// What was written in each column of a stretch of time.
pub fn columns(written: &[Written], span: Span, columns: usize) -> Vec<Amount> {
    let mut amounts = vec![Amount::default(); columns];
    let (length, count) = (span.length(), columns as u64);
    let begins = |column: u64| u64::try_from(u128::from(length) * u128::from(column) / u128::from(count.max(1)));
    let column_of = |at: Micros| {
        let column = u128::from(apart(span.from, at)) * u128::from(count) / u128::from(length.max(1));
        usize::try_from(column).unwrap_or(usize::MAX).min(columns.saturating_sub(1))
    };
    for Written { span: came, amount } in written.iter().filter(|w| w.span.meets(span)) {
        let (first, last) = (column_of(came.from.max(span.from)), column_of(came.to.min(span.to)));
        let whole = came.length();
        // Up to a moment, of this entry. Differences of what came up to the columns' edges leave nothing out.
        let up_to = |at: Micros| match whole {
            0 => *amount,
            whole => amount.share(apart(came.from, at).min(whole), whole),
        };
        let mut before = match came.from < span.from {
            true => up_to(span.from),
            false => Amount::default(),
        };
        for (column, cell) in amounts.iter_mut().enumerate().take(last + 1).skip(first) {
            let end = match column == last {
                true => came.to.min(span.to),
                false => Micros(span.from.0.saturating_add_unsigned(begins(column as u64 + 1).unwrap_or(length))),
            };
            let until = up_to(end);
            *cell = cell.plus(until.minus(before));
            before = until;
        }
    }
    amounts
}

/// How long after `from` a moment is, in microseconds.
fn apart(from: Micros, at: Micros) -> u64 {
    u64::try_from(at.0.saturating_sub(from.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(from: i64, to: i64, records: u64) -> Written {
        let amount = Amount { records, bytes: 10 * records };
        Written { span: Span { from: Micros(from), to: Micros(to) }, amount }
    }

    fn records(all: &[Written], from: i64, to: i64, count: usize) -> Vec<u64> {
        let span = Span { from: Micros(from), to: Micros(to) };
        columns(all, span, count).into_iter().map(|amount| amount.records).collect()
    }

    #[test]
    fn what_came_over_a_while_is_spread_over_it() {
        assert_eq!(records(&[written(0, 100, 40)], 0, 100, 4), [10, 10, 10, 10]);
        assert_eq!(records(&[written(20, 30, 7), written(30, 30, 5), written(75, 99, 24)], 0, 100, 4), [3, 9, 0, 24]);
        assert_eq!(records(&[written(100, 100, 3)], 0, 100, 4), [0, 0, 0, 3]);
        assert_eq!(
            records(&[written(0, 100, 100)], 50, 75, 5),
            [5, 5, 5, 5, 5],
            "of what is only partly drawn, the part"
        );
        assert_eq!(records(&[written(0, 10, 5), written(90, 100, 5)], 20, 80, 2), [0, 0]);
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_whatever_the_columns() {
        let all = [written(3, 97, 1_000_003), written(0, 100, 77), written(50, 50, 9), written(99, 100, 1)];
        for count in 1..200 {
            assert_eq!(records(&all, 0, 100, count).iter().sum::<u64>(), 1_000_090, "{count}");
        }
    }
}
