//! One answer out of those of all workers.

use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_core::{Entry, Query, QueryReply, QueryResult, Reply};

/// Takes the answer of one worker, by its index.
pub(crate) type Collect = Arc<dyn Fn(usize, QueryResult) + Send + Sync>;

/// Gives `reply` the merged answer when every worker has given its own.
pub(crate) fn merge_replies(workers: usize, query: Query, reply: Reply) -> Collect {
    let state = Mutex::new(((0..workers).map(|_| None).collect::<Vec<_>>(), Some(reply)));
    Arc::new(move |worker, answer| {
        let mut state = state.lock();
        state.0[worker] = Some(answer);
        if state.0.iter().all(Option::is_some) {
            let answers = std::mem::take(&mut state.0).into_iter().flatten().collect();
            if let Some(reply) = state.1.take() {
                reply(merge(&query, answers));
            }
        }
    })
}

fn merge(query: &Query, answers: Vec<QueryResult>) -> QueryResult {
    let mut answers = answers.into_iter().collect::<Result<Vec<QueryReply>, _>>()?.into_iter();
    let mut merged = answers.next().expect("a task has at least one worker");
    for answer in answers {
        assert_eq!(answer.epoch, merged.epoch, "all workers answer at one epoch");
        merged.more |= answer.more;
        match query {
            Query::Get { .. } | Query::GetMany { .. } => {
                for (own, other) in merged.entries.iter_mut().zip(answer.entries) {
                    if own.value.is_none() && other.value.is_some() {
                        *own = other;
                    }
                }
            }
            Query::Scan(_) => merged.entries.extend(answer.entries),
        }
    }
    if let Query::Scan(range) = query {
        merged.entries.sort_by(|a: &Entry, b: &Entry| a.encoded.cmp(&b.encoded));
        merged.more |= merged.entries.len() > range.limit;
        merged.entries.truncate(range.limit);
    }
    Ok(merged)
}
