//! The life of one generation, as its leader sees it: the stages and the legal steps between them.
//!
//! ```text
//! Starting ──▶ Fencing ──▶ Scanning ──▶ Planning ──▶ Running
//!     │           │            │            │           │
//!     └───────────┴────────────┴────────────┴───────────┴──▶ Over
//! ```

use serde::Serialize;

/// Where a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Stage {
    /// The generation is proposed.
    Starting,
    /// Its tasks fence every id of the past; ends with the first barrier.
    Fencing,
    /// Its tasks read bindings and sink tails; ends with the second barrier.
    Scanning,
    /// The plan is proposed.
    Planning,
    /// Its tasks process; checkpoints are taken.
    Running,
    /// A newer generation has taken over, or is needed, or the job cannot go on.
    Over,
}

impl Stage {
    /// Whether a generation may step from here to `next`.
    pub fn leads_to(self, next: Self) -> bool {
        match self {
            Self::Starting => matches!(next, Self::Fencing | Self::Over),
            Self::Fencing => matches!(next, Self::Scanning | Self::Over),
            Self::Scanning => matches!(next, Self::Planning | Self::Over),
            Self::Planning => matches!(next, Self::Running | Self::Over),
            Self::Running => matches!(next, Self::Over),
            Self::Over => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stage::{self, *};

    #[test]
    fn a_generation_goes_forward_one_stage_at_a_time() {
        let all: [Stage; 6] = [Starting, Fencing, Scanning, Planning, Running, Over];
        for (from, stage) in all.into_iter().enumerate() {
            for (to, next) in all.into_iter().enumerate() {
                let legal = stage != Over && (next == Over || to == from + 1);
                assert_eq!(stage.leads_to(next), legal, "{stage:?} to {next:?}");
            }
        }
    }
}
