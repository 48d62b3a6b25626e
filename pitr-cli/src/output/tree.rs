//! The tree that timelines form: each below the one that it left.
//!
//! Owns: the order and the drawing. A timeline whose parent is not shown, or not known, is a root.

use pitr_archive::{
    catalog::model::Timeline,
    ids::{Boundary, TimelineId},
};

/// What a tree is drawn of.
pub trait Node {
    /// The timeline.
    fn id(&self) -> TimelineId;
    /// The one that it left, and where.
    fn left(&self) -> Option<(TimelineId, Boundary)>;
}

impl Node for &Timeline {
    fn id(&self) -> TimelineId {
        Timeline::id(self)
    }

    fn left(&self) -> Option<(TimelineId, Boundary)> {
        self.document().parent.map(|parent| (parent.timeline, parent.boundary))
    }
}

/// Each timeline with the branch that leads to it, parents before their children, children in the order in which they left.
pub fn branches<N: Node + Copy>(nodes: &[N]) -> Vec<(String, N)> {
    let shown = |id: TimelineId| nodes.iter().any(|n| n.id() == id);
    let mut rows = Vec::new();
    // A parent is older than its children, so every walk ends.
    for root in nodes.iter().filter(|n| n.left().is_none_or(|(parent, _)| !shown(parent) || parent >= n.id())) {
        rows.push((String::new(), *root));
        below(nodes, root.id(), "", &mut rows);
    }
    rows
}

fn below<N: Node + Copy>(nodes: &[N], parent: TimelineId, indent: &str, rows: &mut Vec<(String, N)>) {
    let left_here = |n: &&N| n.left().is_some_and(|(of, _)| of == parent && of < n.id());
    let mut children: Vec<N> = nodes.iter().filter(left_here).copied().collect();
    children.sort_by_key(|n| (n.left().map(|(_, at)| at), n.id()));
    let last = children.len().saturating_sub(1);
    for (index, child) in children.into_iter().enumerate() {
        let (corner, beside) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        rows.push((format!("{indent}{corner}"), child));
        below(nodes, child.id(), &format!("{indent}{beside}"), rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Line(u32, Option<(u32, u64)>);

    impl Node for Line {
        fn id(&self) -> TimelineId {
            TimelineId::new(self.0)
        }

        fn left(&self) -> Option<(TimelineId, Boundary)> {
            self.1.map(|(parent, at)| (TimelineId::new(parent), Boundary::new(at)))
        }
    }

    fn draw(lines: &[Line]) -> Vec<String> {
        branches(lines).into_iter().map(|(branch, line)| format!("{branch}{}", line.0)).collect()
    }

    #[test]
    fn children_stand_below_their_parent_in_the_order_in_which_they_left_it() {
        let lines =
            [Line(1, None), Line(2, Some((1, 50))), Line(3, Some((1, 20))), Line(4, Some((3, 30))), Line(5, None)];
        assert_eq!(draw(&lines), ["1", "├─ 3", "│  └─ 4", "└─ 2", "5"]);
    }

    #[test]
    fn one_whose_parent_is_not_shown_is_a_root() {
        assert_eq!(draw(&[Line(4, Some((3, 30)))]), ["4"]);
        assert_eq!(draw(&[Line(4, Some((4, 30)))]), ["4"], "a damaged document ends no walk");
    }
}
