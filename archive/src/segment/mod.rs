//! The archived stream: entries, running hash, frames, segments. No I/O.
//!
//! - [`entry`]: what the stream consists of, and its one encoding. [`chain`]: the hash over it.
//! - [`header`], [`frame`], [`footer`]: the parts of a segment object; [`touched`]: what a frame writes; [`envelope`]: compress, then seal.
//! - [`writer`] builds a segment while entries arrive, or of several others; [`reader`] takes one apart and believes nothing.

pub mod chain;
pub mod entry;
pub mod envelope;
pub mod footer;
pub mod frame;
pub mod header;
pub mod reader;
pub mod touched;
pub mod writer;

#[cfg(test)]
mod tests;
