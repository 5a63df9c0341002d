//! thalweg-state
pub mod changelog;
