//! Lanes of names beside a bar.
//!
//! Owns: where each name stands, so that none covers another one or the pole of another one. What finds no room is not drawn;
//! whoever draws counts it. Lane 0 is the one next to the bar.

use super::{
    canvas::{Ink, Strip},
    glyphs::{Bend, Glyph, Glyphs},
};

/// A name and the column that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The column.
    pub column: usize,
    /// As it is written.
    pub name: String,
    /// How many things it names there.
    pub things: usize,
}

/// On which side of the bar the lanes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Lane 0 is the lowest.
    Above,
    /// Lane 0 is the highest.
    Below,
}

/// Names in their places.
#[derive(Clone, Debug)]
pub struct Lanes {
    width: usize,
    most: usize,
    lanes: Vec<Lane>,
    places: Vec<Place>,
    things: usize,
}

/// What is taken of a lane: the column of the name that covers a cell, and the poles that pass.
#[derive(Clone, Debug)]
struct Lane {
    names: Vec<Option<usize>>,
    poles: Vec<bool>,
}

/// Where a name stands.
#[derive(Clone, Debug)]
struct Place {
    lane: usize,
    column: usize,
    name: String,
    direction: Direction,
}

/// To which side of its pole a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Right,
    Left,
}

impl Lanes {
    /// The names in `most` lanes at most. From the right to the left, a name that stands higher has its pole beside those
    /// below it; where the picture ends it is the other way round. Both are tried, and the one with more names is taken.
    pub fn of(names: &[Named], width: usize, most: usize) -> Self {
        let mut sorted: Vec<&Named> = names.iter().collect();
        sorted.sort_by_key(|named| named.column);
        let (mut from_left, mut from_right) = (Self::new(width, most), Self::new(width, most));
        for named in &sorted {
            from_left.place(named, [Direction::Left, Direction::Right]);
        }
        for named in sorted.iter().rev() {
            from_right.place(named, [Direction::Right, Direction::Left]);
        }
        if from_left.things > from_right.things { from_left } else { from_right }
    }

    const fn new(width: usize, most: usize) -> Self {
        Self { width, most, lanes: Vec::new(), places: Vec::new(), things: 0 }
    }

    /// How many things have their names there.
    pub const fn things(&self) -> usize {
        self.things
    }

    fn place(&mut self, named: &Named, directions: [Direction; 2]) {
        // The second direction only where no lane has room for the first one: it stands in the way of poles to come.
        let lanes = |direction| (0..self.most).map(move |lane| (lane, direction));
        let found = directions.into_iter().flat_map(lanes).find(|(lane, to)| self.fits(*lane, named, *to));
        let Some((lane, direction)) = found else { return };
        let column = named.column;
        while self.lanes.len() <= lane {
            self.lanes.push(Lane { names: vec![None; self.width], poles: vec![false; self.width] });
        }
        for below in self.lanes.iter_mut().take(lane) {
            below.poles.get_mut(column).into_iter().for_each(|pole| *pole = true);
        }
        if let (Some(cells), Some(lane)) = (self.cells(named, direction), self.lanes.get_mut(lane)) {
            lane.names.get_mut(cells).into_iter().flatten().for_each(|cell| *cell = Some(column));
        }
        self.things += named.things;
        self.places.push(Place { lane, column, name: named.name.clone(), direction });
    }

    /// The cells of a name with its corner; `None` where the picture has not so many.
    fn cells(&self, named: &Named, direction: Direction) -> Option<std::ops::Range<usize>> {
        let length = named.name.chars().count();
        let (from, to) = match direction {
            Direction::Right => (named.column, named.column.checked_add(length)?),
            Direction::Left => (named.column.checked_sub(length)?, named.column),
        };
        (to < self.width).then_some(from..to + 1)
    }

    fn fits(&self, lane: usize, named: &Named, direction: Direction) -> bool {
        let column = named.column;
        let Some(cells) = self.cells(named, direction) else { return false };
        let passes = |below: &Lane| below.names.get(column).is_none_or(|name| name.is_none_or(|of| of == column));
        if !self.lanes.iter().take(lane).all(passes) {
            return false;
        }
        let Some(lane) = self.lanes.get(lane) else { return true };
        // A cell between two names, so that they can be told apart.
        let around = cells.start.saturating_sub(1)..(cells.end + 1).min(self.width);
        let free = lane.names.get(around).is_some_and(|names| names.iter().all(Option::is_none));
        free && cells.into_iter().all(|cell| cell == column || lane.poles.get(cell) == Some(&false))
    }

    /// The lanes as they are drawn, from above.
    pub fn draw(&self, glyphs: Glyphs, side: Side, ink: Ink) -> Vec<Strip> {
        let mut strips: Vec<_> = self.lanes.iter().map(|_| Strip::new(self.width)).collect();
        for (strip, lane) in strips.iter_mut().zip(&self.lanes) {
            for (column, _) in lane.poles.iter().enumerate().filter(|(_, pole)| **pole) {
                strip.put(column, glyphs.of(Glyph::Pole), Ink::Faint);
            }
        }
        for place in &self.places {
            let Some(strip) = strips.get_mut(place.lane) else { continue };
            let goes_on = self.lanes.get(place.lane).is_some_and(|lane| lane.poles.get(place.column) == Some(&true));
            let bend = match side {
                _ if goes_on => Bend::On,
                Side::Above => Bend::Top,
                Side::Below => Bend::Bottom,
            };
            let (corner, from) = match place.direction {
                Direction::Right => (Glyph::Right(bend), place.column + 1),
                Direction::Left => (Glyph::Left(bend), place.column.saturating_sub(place.name.chars().count())),
            };
            strip.put(place.column, glyphs.of(corner), Ink::Faint);
            strip.write(from, &place.name, ink);
        }
        if side == Side::Above {
            strips.reverse();
        }
        strips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(column: usize, name: &str) -> Named {
        Named { column, name: name.to_owned(), things: 1 }
    }

    fn drawn(names: &[(usize, &str)], width: usize, side: Side) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|(column, name)| named(*column, name)).collect();
        let lanes = Lanes::of(&names, width, 5);
        lanes.draw(Glyphs::Unicode, side, Ink::Plain).into_iter().map(|strip| strip.line().plain()).collect()
    }

    #[test]
    fn a_name_that_stands_higher_has_its_pole_beside_those_below() {
        assert_eq!(
            drawn(&[(2, "first"), (5, "second"), (20, "third")], 30, Side::Above),
            ["  ┌first", "  │  ┌second        ┌third"]
        );
        assert_eq!(drawn(&[(2, "a"), (2, "b")], 10, Side::Above), ["  ┌a", "  ├b"]);
    }

    #[test]
    fn where_the_picture_ends_names_stand_on_the_left_of_their_poles() {
        assert_eq!(drawn(&[(9, "end")], 10, Side::Below), ["      end┘"]);
        assert_eq!(
            drawn(&[(14, "seventy"), (17, "eighty"), (19, "ninety")], 20, Side::Above),
            ["             ninety┐", "           eighty┐ │", "       seventy┐  │ │"]
        );
    }

    #[test]
    fn what_finds_no_room_is_left_out() {
        let names: Vec<_> = (0..9).map(|n| named(3, &format!("name-{n}"))).collect();
        assert_eq!(Lanes::of(&names, 20, 5).things(), 5);
        assert_eq!(Lanes::of(&names, 5, 5).things(), 0);
    }
}
