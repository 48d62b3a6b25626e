//! A service seen from outside, over HTTP: metrics for Prometheus, health and readiness, JSON, and a page for people.
//!
//! - [`board`]: one [`board::Panel`] for every archiver, into which it tells how it is doing, and the [`board::Look`]: one
//!   consistent picture of all of them, which everything else here is made from.
//! - [`chores`]: how what is due by the clock went.
//! - [`overview`]: what can be restored, from the catalog; [`lags`]: the lag of the last day; [`background`] keeps both.
//! - [`health`]: what is wrong with a picture, by the operator's limits.
//! - [`metrics`], [`status`], [`page`] (with [`timeline`], [`lag_chart`] and [`markup`]): pictures as text; pure.
//! - [`server`]: the listener and its few paths.
//!
//! Nobody who looks asks anything of an archiver: what it told last is copied, under a lock that is held for the copy. A port
//! that does not work is an error when the service starts, and never afterwards.
//! Refuses: to change anything (every path is read-only), authentication (it is served on loopback unless the operator says
//! otherwise), and anything from elsewhere: the page has no script and loads nothing.

mod background;
pub mod board;
pub mod chores;
mod health;
mod lag_chart;
mod lags;
mod markup;
mod metrics;
mod overview;
mod page;
mod server;
mod status;
mod timeline;

#[cfg(test)]
mod tests;

pub use background::keep;
pub use server::Listening;
