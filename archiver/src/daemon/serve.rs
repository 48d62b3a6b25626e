//! Requests of the control socket.
//!
//! Owns: what is answered at once, and what waits until the archive has it ([`crate::requests`]).

use pitr_archive::{Code, Error, Result};

use super::Daemon;
use crate::{
    archiver::untag,
    control::{Answer, Command, Request},
    engine::BaseReason,
    requests::{Archived, Place, Wanted, answer},
};

impl Daemon {
    /// Answers at once, or begins what is answered later.
    pub(super) fn command(&mut self, command: Command) {
        let Command { request, reply } = command;
        match request {
            Request::Status => answer(reply, self.archiver.status().map(|status| Answer::Status(Box::new(status)))),
            Request::Flush => match self.archiver.engine.flush_owner() {
                Ok(_) => self.requests.add(Wanted::Flush, reply),
                Err(e) => answer(reply, Err(e)),
            },
            Request::Tag(request) => match self.archiver.begin_tag(&request) {
                Ok(begun) => self.requests.add(Wanted::Tag(Box::new(begun)), reply),
                Err(e) => answer(reply, Err(e)),
            },
            Request::Untag(request) => {
                // Beside everything else: the store may take its time.
                let archive = self.archiver.archive().clone();
                tokio::spawn(async move {
                    let untagged = untag(&archive, &request).await;
                    answer(reply, untagged.map(|deleted| Answer::Untag { deleted }));
                });
            }
            Request::Reload => self.archiver.parts.observer.reload(reply),
            Request::Base => {
                self.base_waiters.push(reply);
                if self.base.is_none() {
                    self.archiver.engine.want_base(BaseReason::Asked);
                    self.archiver.last_base_attempt = None;
                }
            }
        }
    }

    pub(super) fn place(&self) -> Place {
        Place { boundary: self.archiver.engine.position().boundary, joins: self.archiver.joins }
    }

    /// Answers those whose place the archive has.
    pub(super) async fn serve_requests(&mut self) -> Result<()> {
        if self.requests.is_empty() || self.delivery.is_some() || self.archiver.pending.is_some() {
            return Ok(());
        }
        let place = Place { boundary: self.archiver.acknowledged().boundary, joins: self.archiver.joins };
        let archived = Archived { place, all: self.archiver.engine.stream.is_empty() };
        for (wanted, reply) in self.requests.served(archived) {
            let answered = match wanted {
                Wanted::Flush => {
                    self.archiver.refuse_while_waiting("shipping").map(|()| Answer::Flush(self.archiver.acknowledged()))
                }
                Wanted::Tag(begun) => self.archiver.finish_tag(*begun).await.map(|tag| Answer::Tag(Box::new(tag))),
            };
            let fenced = answered.as_ref().err().is_some_and(|e| e.code() == Code::Fenced);
            answer(reply, answered);
            if fenced {
                return Err(Error::new(Code::Fenced, "serving a request"));
            }
        }
        Ok(())
    }
}
