//! What is asked of a running archiver and answered once the archive has it: flushes and tags.
//!
//! Owns: who waits for what. A request waits in the runner beside everything else, so that reading, pinning and the
//! limits of what is held go on while the archive does not answer.
//! Refuses: to read or to ship; the runner does, and tells.

use pitr_archive::{Error, Result, ids::Boundary};
use tokio::sync::oneshot;

use crate::{archiver::TagBegun, control::Answer};

/// What somebody waits for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// That everything is in the archive.
    Flush,
    /// A name for that.
    Tag(Box<TagBegun>),
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Answer>>,
    /// Where everything had been read that was there when it was asked.
    read: Option<Place>,
}

/// A place in the stream. Behind another process's segment it has another meaning: everything is read anew there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The end of the stream.
    pub boundary: Boundary,
    /// How often the archive's end turned out to be another one.
    pub joins: u64,
}

/// How far the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Archived {
    /// The end that is acknowledged.
    pub place: Place,
    /// Whether nothing is read that is not acknowledged.
    pub all: bool,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Requests(Vec<Waiter>);

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, wanted: Wanted, reply: oneshot::Sender<Result<Answer>>) {
        self.0.push(Waiter { wanted, reply, read: None });
    }

    /// Whether a look has to read everything for somebody.
    pub(crate) fn want_a_look(&self) -> bool {
        self.0.iter().any(|waiter| waiter.read.is_none())
    }

    /// A look that began after they asked has read everything up to here.
    pub(crate) fn everything_is_read(&mut self, here: Place) {
        for waiter in self.0.iter_mut().filter(|waiter| waiter.read.is_none()) {
            waiter.read = Some(here);
        }
    }

    /// Takes out those whose place the archive has.
    pub(crate) fn served(&mut self, archived: Archived) -> Vec<(Wanted, oneshot::Sender<Result<Answer>>)> {
        // Whoever asked has gone: a tag that nobody knows of would name another moment than was meant.
        self.0.retain(|waiter| !waiter.reply.is_closed());
        for waiter in &mut self.0 {
            waiter.read = waiter.read.filter(|read| read.joins == archived.place.joins);
        }
        // An event at the very place counts, too: it is told apart only by what comes behind it.
        let is_served = |read: &Place| {
            archived.place.boundary > read.boundary || archived.place.boundary == read.boundary && archived.all
        };
        let (served, waiting) =
            std::mem::take(&mut self.0).into_iter().partition(|waiter| waiter.read.as_ref().is_some_and(is_served));
        self.0 = waiting;
        let served: Vec<Waiter> = served;
        served.into_iter().map(|waiter| (waiter.wanted, waiter.reply)).collect()
    }

    /// Nobody will be served any more.
    pub(crate) fn refuse(&mut self, why: impl Fn() -> Error) {
        for waiter in self.0.drain(..) {
            answer(waiter.reply, Err(why()));
        }
    }
}

/// Answers; a requester that has gone away is no error.
pub(crate) fn answer(reply: oneshot::Sender<Result<Answer>>, answer: Result<Answer>) {
    let error = answer.as_ref().err().map(ToString::to_string);
    if reply.send(answer).is_err() {
        tracing::debug!(error, "the requester did not wait for the answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(boundary: u64, joins: u64) -> Place {
        Place { boundary: Boundary::new(boundary), joins }
    }

    #[test]
    fn who_asks_waits_for_a_look_and_for_what_it_read_and_again_behind_another_process_s_segment() {
        let mut requests = Requests::default();
        let (reply, _answer) = oneshot::channel();
        requests.add(Wanted::Flush, reply);
        let archived = |boundary, joins, all| Archived { place: place(boundary, joins), all };
        assert!(requests.want_a_look());
        assert!(requests.served(archived(9, 0, true)).is_empty(), "nothing was read for it yet");
        requests.everything_is_read(place(9, 0));
        assert!(requests.served(archived(8, 0, false)).is_empty());
        assert!(requests.served(archived(9, 0, false)).is_empty(), "an event there may be under way");
        assert!(requests.served(archived(9, 1, true)).is_empty() && requests.want_a_look());
        requests.everything_is_read(place(7, 1));
        assert_eq!(requests.served(archived(8, 1, false)).len(), 1);
        assert!(requests.is_empty());
    }

    #[test]
    fn who_has_gone_is_not_served() {
        let mut requests = Requests::default();
        requests.add(Wanted::Flush, oneshot::channel().0);
        requests.everything_is_read(place(9, 0));
        assert!(requests.served(Archived { place: place(10, 0), all: true }).is_empty() && requests.is_empty());
    }
}
