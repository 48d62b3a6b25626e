//! Which bases reach a place, and when one base makes another one unnecessary.
//!
//! Owns: the rules, on the safe side of what a plan accepts: where the summaries leave a doubt, a base more is kept. Pure.

use pitr_archive::{
    catalog::{crossing::Footing, schema::BaseDocument},
    ids::Boundary,
    segment::entry::{Blocks, Interval, ManifestPoint},
};

use super::spans::{Certain, Span};

impl<'a> Span<'a> {
    /// The bases from which a plan would choose for targets at `place` and behind it, as far as they lie before it: the newest
    /// one, and older ones while it is not certain that a newer one will do. Newest first.
    pub fn reaching(&self, place: Boundary) -> Vec<&'a BaseDocument> {
        let before = self.bases.partition_point(|base| base.floor.boundary <= place);
        let mut found: Vec<&BaseDocument> = Vec::new();
        for (base, certain) in self.bases.iter().zip(&self.certain).take(before).rev() {
            found.push(base);
            match certain {
                Certain::AtItsFloor => break,
                Certain::BehindIt if base.floor.boundary < place => break,
                Certain::BehindIt | Certain::Nowhere => {}
            }
        }
        found
    }

    /// Finds out of which bases it is certain that no older one reaches what they do not reach behind their floor.
    pub fn judge(&mut self) {
        let mut older: Option<(ManifestPoint, Boundary)> = None;
        self.certain = self
            .bases
            .iter()
            .map(|base| {
                // Not in every history is the base with the later floor the one that was taken later.
                let here = (base.manifest, base.first_record);
                let last = older.is_none_or(|(manifest, first)| manifest <= here.0 && first <= here.1);
                older = Some(older.map_or(here, |(manifest, first)| (manifest.max(here.0), first.max(here.1))));
                match last && self.is_clean(base, base.floor.boundary) {
                    false => Certain::Nowhere,
                    true if self.is_plain(base) => Certain::AtItsFloor,
                    true => Certain::BehindIt,
                }
            })
            .collect();
    }

    /// Whether nothing happened at a base's floor that would make several states of one boundary.
    fn is_plain(&self, base: &BaseDocument) -> bool {
        let floor = base.floor.boundary;
        let before = Boundary::new(floor.get().saturating_sub(1));
        let jumps = self.barriers.iter().any(|b| b.reason.blocks() == Blocks::Jump && b.interval.lo == floor);
        // What ends at the floor may have happened on either side of a place there.
        let inside = floor > self.start && (floor < self.end || self.last);
        inside && self.is_clean(base, before) && !jumps && !self.sessions.contains(&floor)
    }

    /// Whether a base holds nothing that may have happened after `place`: a database's state just behind its floor could else
    /// not be restored from it.
    fn is_clean(&self, base: &BaseDocument, place: Boundary) -> bool {
        let ahead = |manifest: Option<ManifestPoint>, interval: Interval| {
            manifest.is_none_or(|point| point <= base.manifest) && interval.hi.is_none_or(|hi| hi > place)
        };
        let changes = self.barriers.iter().filter(|b| b.reason.blocks() == Blocks::Floor && !b.reason.ends_run());
        let barriers = changes.map(|b| (b.manifest, b.interval));
        let families = self.families.iter().map(|f| (Some(f.manifest), f.interval));
        !barriers.chain(families).any(|(manifest, interval)| ahead(manifest, interval))
    }

    /// Whether its floor, at least, is reached from a base.
    pub fn serves(&self, base: &BaseDocument) -> bool {
        let footing = Footing::from(base);
        !self.barriers.iter().any(|b| b.interval.lo < footing.floor && b.hurdle().concerns(&footing))
    }

    /// Whether every target that is reached from `newer` is reached from `older`, too: nothing that replay cannot cross lies
    /// between them.
    pub fn covers(&self, older: &BaseDocument, newer: &BaseDocument) -> bool {
        let (a, b) = (Footing::from(older), Footing::from(newer));
        let crossed =
            self.barriers.iter().map(|b| b.hurdle()).any(|hurdle| hurdle.concerns(&a) && !hurdle.concerns(&b));
        // A target inside the interval of a change is only reached from a base that has the change.
        let shown = self.families.iter().any(|f| {
            a.manifest < f.manifest
                && f.manifest <= b.manifest
                && f.interval.hi.is_none_or(|hi| hi >= newer.floor.boundary)
        });
        // A session can begin with lower numbers than the records before it have.
        let session = self.sessions.iter().any(|at| a.floor <= *at && *at <= b.floor);
        a.floor <= b.floor && a.first <= b.first && a.manifest <= b.manifest && !crossed && !shown && !session
    }
}
