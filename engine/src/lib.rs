//! The surfaces of Thalweg: the command line that `thalweg` and every job binary have, and HTTP.

pub mod cli;
pub mod http;
mod progress;
mod signals;

pub use cli::Exit;
pub use progress::Progress;
pub use signals::{StopSignal, on_stop};
