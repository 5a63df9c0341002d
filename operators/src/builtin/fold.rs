//! Typed folds for the Rust builder: count, sum, min, max, mean, reduce.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use thalweg_core::{Data, Key};

use crate::process::{EpochCtx, KeyedProcess, Output, ProcessError, RecordsOf};

/// A fold: the state of a key after one more value.
pub trait Fold: Send + Sync + 'static {
    /// What is folded by.
    type Key: Key;
    /// What is folded.
    type In: Data;
    /// What is kept.
    type State: Data;
    /// What is shown and emitted.
    type Result: Data;
    /// Takes one more value.
    fn step(&self, state: &mut Option<Self::State>, value: &Self::In) -> Result<(), ProcessError>;
    /// What the state comes to.
    fn result(&self, state: &Self::State) -> Self::Result;
}

/// Every fold is a keyed process that emits the key and the result once per epoch.
macro_rules! keyed_process {
    ($name:ident<K, V $(, $extra:ident)?> where $($bound:tt)*) => {
        impl<K: Key, V: Data $(, $extra)?> KeyedProcess for $name<K, V $(, $extra)?> where $($bound)* {
            type Key = K;
            type In = V;
            type State = <Self as Fold>::State;
            type Out = (K, <Self as Fold>::Result);
            const TIMERS: bool = false;

            fn process(
                &self,
                key: &K,
                records: &mut RecordsOf<'_, K, V>,
                state: &mut Option<Self::State>,
                out: &mut Output<Self::Out>,
                _: &EpochCtx,
            ) -> Result<(), ProcessError> {
                for value in records {
                    self.step(state, value)?;
                }
                if let Some(state) = state {
                    out.emit((key.clone(), self.result(state)));
                }
                Ok(())
            }

            fn show(&self, state: &Self::State) -> Result<String, ProcessError> {
                Ok(serde_json::to_string(&self.result(state))?)
            }
        }
    };
}

macro_rules! plain_fold {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<K, V> {
            types: PhantomData<fn() -> (K, V)>,
        }

        impl<K, V> Default for $name<K, V> {
            fn default() -> Self {
                Self { types: PhantomData }
            }
        }
    };
}

plain_fold! {
    /// How many records a key has had.
    Count
}
plain_fold! {
    /// The sum of a key's values.
    Sum
}
plain_fold! {
    /// The least of a key's values; values that do not compare (NaN) are passed over.
    Min
}
plain_fold! {
    /// The greatest of a key's values; values that do not compare (NaN) are passed over.
    Max
}
plain_fold! {
    /// The mean of a key's values.
    Mean
}

impl<K: Key, V: Data> Fold for Count<K, V> {
    type Key = K;
    type In = V;
    type State = u64;
    type Result = u64;
    #[inline]
    fn step(&self, state: &mut Option<u64>, _: &V) -> Result<(), ProcessError> {
        *state.get_or_insert(0) += 1;
        Ok(())
    }
    fn result(&self, state: &u64) -> u64 {
        *state
    }
}

/// A number that can be summed.
pub trait SumOf: Data {
    /// The sum, or nothing where it does not fit.
    fn checked_sum(&self, other: &Self) -> Option<Self>;
}

macro_rules! sum_of {
    ($($int:ty),*) => {
        $(impl SumOf for $int {
            fn checked_sum(&self, other: &Self) -> Option<Self> {
                self.checked_add(*other)
            }
        })*
    };
}

sum_of!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, usize);

impl SumOf for f64 {
    fn checked_sum(&self, other: &Self) -> Option<Self> {
        Some(self + other)
    }
}

impl<K: Key, V: SumOf> Fold for Sum<K, V> {
    type Key = K;
    type In = V;
    type State = V;
    type Result = V;
    fn step(&self, state: &mut Option<V>, value: &V) -> Result<(), ProcessError> {
        *state = Some(match state {
            None => value.clone(),
            Some(sum) => sum.checked_sum(value).ok_or("the sum does not fit its type; sum a wider one")?,
        });
        Ok(())
    }
    fn result(&self, state: &V) -> V {
        state.clone()
    }
}

/// Keeps the value that stands before (`<`) or behind (`>`) all others.
macro_rules! extreme {
    ($name:ident, $better:tt) => {
        impl<K: Key, V: Data + PartialOrd> Fold for $name<K, V> {
            type Key = K;
            type In = V;
            type State = V;
            type Result = V;
            fn step(&self, state: &mut Option<V>, value: &V) -> Result<(), ProcessError> {
                if state.as_ref().is_none_or(|best| value $better best) {
                    *state = Some(value.clone());
                }
                Ok(())
            }
            fn result(&self, state: &V) -> V {
                state.clone()
            }
        }
    };
}

extreme!(Min, <);
extreme!(Max, >);

/// Sum and count of the values so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct MeanState {
    sum: f64,
    count: u64,
}

impl<K: Key, V: Data + Into<f64>> Fold for Mean<K, V> {
    type Key = K;
    type In = V;
    type State = MeanState;
    type Result = f64;
    fn step(&self, state: &mut Option<MeanState>, value: &V) -> Result<(), ProcessError> {
        let state = state.get_or_insert_default();
        state.sum += value.clone().into();
        state.count += 1;
        Ok(())
    }
    fn result(&self, state: &MeanState) -> f64 {
        state.sum / state.count as f64
    }
}

/// Any fold of a key's values.
pub struct Reduce<K, V, F> {
    fold: F,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, F> Reduce<K, V, F> {
    /// Folds with `fold`; the first value starts it.
    pub fn new(fold: F) -> Self {
        Self { fold, types: PhantomData }
    }
}

impl<K: Key, V: Data, F: Fn(V, &V) -> V + Send + Sync + 'static> Fold for Reduce<K, V, F> {
    type Key = K;
    type In = V;
    type State = V;
    type Result = V;
    fn step(&self, state: &mut Option<V>, value: &V) -> Result<(), ProcessError> {
        *state = Some(match state.take() {
            None => value.clone(),
            Some(folded) => (self.fold)(folded, value),
        });
        Ok(())
    }
    fn result(&self, state: &V) -> V {
        state.clone()
    }
}

keyed_process!(Count<K, V> where K: Key);
keyed_process!(Sum<K, V> where V: SumOf);
keyed_process!(Min<K, V> where V: PartialOrd);
keyed_process!(Max<K, V> where V: PartialOrd);
keyed_process!(Mean<K, V> where V: Into<f64>);
keyed_process!(Reduce<K, V, F> where F: Fn(V, &V) -> V + Send + Sync + 'static);
