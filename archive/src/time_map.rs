//! time_map
