//! What a person sees of a running job: a bar for bounded input, a status line for the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use thalweg_core::{JobLag, JobService, JobStatus, Phase, RestoreInfo, format_duration};

use crate::cli::Screen;

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is written where standard error is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// The records per second are those of this last while.
const WINDOW: Duration = Duration::from_secs(3);

/// Shows the progress of a job on standard error until it is finished or dropped. Shows nothing with `-q`.
pub struct Progress {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to show how `job` is doing.
    pub fn start(job: Arc<dyn JobService>, screen: &Screen) -> Self {
        if screen.is_quiet() {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let screen = screen.clone();
        let watch = move || {
            let bar = Bar::new(&screen);
            let pause = if bar.is_some() { REDRAW } else { LINE };
            let mut rate = Rate::default();
            loop {
                let last = stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
                let status = job.status();
                let line = status_line(&status, rate.add(Instant::now(), status.records_in), now_micros());
                match &bar {
                    Some(bar) if !last => bar.show(&status, line),
                    Some(bar) => bar.clear(),
                    None => {}
                }
                if last || bar.is_none() {
                    screen.note(&status_line(&status, rate.per_second(), now_micros()));
                }
                if last {
                    return;
                }
            }
        };
        // Without a thread there is no progress to be seen; the job is as well.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(watch).ok();
        Self { stop: Some(stop), thread }
    }

    /// Takes the bar away, leaves the last status line, and returns when the terminal is free for results.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only shows things: where it panicked there is nothing to undo.
            let _ = thread.join();
        }
    }
}

/// A line, or a bar and a line, at the bottom of a terminal.
struct Bar(ProgressBar);

impl Bar {
    /// Nothing where standard error is no terminal.
    fn new(screen: &Screen) -> Option<Self> {
        let bar = screen.bars().add(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        if bar.is_hidden() {
            screen.bars().remove(&bar);
            return None;
        }
        bar.set_style(ProgressStyle::with_template("{wide_msg}").expect("a valid template"));
        Some(Self(bar))
    }

    fn show(&self, status: &JobStatus, line: String) {
        if let Some(progress) = status.progress {
            if self.0.length().is_none() {
                self.0.set_length(1_000_000);
                let template = "[{bar:40}] {percent:>3}%\n{wide_msg}";
                self.0
                    .set_style(ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> "));
            }
            self.0.set_position(u64::from(progress.0));
        }
        self.0.set_message(line);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Records per second over [`WINDOW`].
#[derive(Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn add(&mut self, now: Instant, count: u64) -> u64 {
        self.samples.push_back((now, count));
        // One sample from before the window stays, so that there are always two to compare.
        while self.samples.len() > 2 && now.duration_since(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
        self.per_second()
    }

    fn per_second(&self) -> u64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return 0 };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        if seconds == 0.0 { 0 } else { (last.1.saturating_sub(first.1) as f64 / seconds) as u64 }
    }
}

/// `orders running  12,345 records/s  1,234,567 read  epoch 42  checkpoint 0.8s ago`
fn status_line(status: &JobStatus, per_second: u64, now_micros: i64) -> String {
    let phase = match status.state {
        Phase::Restoring => "restoring",
        Phase::Replaying => "replaying",
        Phase::Running => "running",
        Phase::Finished => "finished",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
    };
    let checkpoint = match &status.checkpoint {
        None => "no checkpoint yet".to_owned(),
        Some(last) => {
            let age = Duration::from_micros(u64::try_from(now_micros.saturating_sub(last.committed_at)).unwrap_or(0));
            match age.as_secs() {
                // With the same digits all the time, so that the line does not flicker.
                0..60 => format!("checkpoint {:.1}s ago", age.as_secs_f64()),
                seconds => format!("checkpoint {} ago", format_duration(Duration::from_secs(seconds))),
            }
        }
    };
    if let Some(restore) = &status.restore {
        return format!("{} {phase}  {}", status.job, restore_text(restore));
    }
    let behind = match &status.lag {
        Some(lag) if lag.records > 0 => format!("  {}", lag_text(lag)),
        _ => String::new(),
    };
    let speed = match status.state {
        Phase::Finished | Phase::Stopped | Phase::Failed => String::new(),
        Phase::Restoring | Phase::Replaying | Phase::Running => format!("{} records/s  ", grouped(per_second)),
    };
    let (job, read, epoch) = (&status.job, grouped(status.records_in), status.epoch);
    format!("{job} {phase}  {speed}{read} read{behind}  epoch {epoch}  {checkpoint}")
}

/// `1,234 behind by 5.1s`
fn lag_text(lag: &JobLag) -> String {
    let by = lag.millis.map(|millis| format!(" by {:.1}s", millis as f64 / 1e3)).unwrap_or_default();
    format!("{} behind{by}", grouped(lag.records))
}

/// `1,234 of 5,678 changelog records read, about 12s left`
pub(crate) fn restore_text(restore: &RestoreInfo) -> String {
    let left = match restore.left_ms {
        // To the second: it is a guess.
        Some(millis) => format!(", about {} left", format_duration(Duration::from_secs(millis.div_ceil(1000)))),
        None => String::new(),
    };
    format!("{} of {} changelog records read{left}", grouped(restore.done), grouped(restore.total))
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn now_micros() -> i64 {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    i64::try_from(micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::{CheckpointInfo, Epoch, Generation, JobId, JobName};

    fn status(state: Phase, checkpoint: Option<i64>) -> JobStatus {
        let info = |committed_at| CheckpointInfo {
            epoch: Epoch(40),
            generation: Generation(1),
            committed_at,
            duration_ms: 3,
            changed_keys: 1,
        };
        JobStatus {
            job: JobName::new("orders").expect("a name"),
            job_id: JobId(1),
            state,
            reason: None,
            generation: Generation(1),
            epoch: Epoch(42),
            epochs_open: 0,
            checkpoint: checkpoint.map(info),
            checkpoint_failure: None,
            records_in: 1_234_567,
            records_out: 0,
            dead_letters: 0,
            progress: None,
            lag: None,
            restore: None,
            workers: 1,
        }
    }

    #[test]
    fn lines_say_how_it_goes() {
        for (state, checkpoint, expected) in [
            (
                Phase::Running,
                Some(8_765_000),
                "orders running  12,345 records/s  1,234,567 read  epoch 42  checkpoint 1.2s ago",
            ),
            (Phase::Restoring, None, "orders restoring  12,345 records/s  1,234,567 read  epoch 42  no checkpoint yet"),
            (Phase::Finished, Some(10_000_000), "orders finished  1,234,567 read  epoch 42  checkpoint 0.0s ago"),
        ] {
            assert_eq!(status_line(&status(state, checkpoint), 12_345, 10_000_000), expected);
        }
    }

    #[test]
    fn a_line_says_what_is_behind_and_what_a_restore_has_left() {
        let lag = |records, millis| JobStatus { lag: Some(JobLag { records, millis }), ..status(Phase::Running, None) };
        let restore = |done, left_ms| JobStatus {
            restore: Some(RestoreInfo { done, total: 5_678, left_ms }),
            ..status(Phase::Restoring, None)
        };
        for (status, expected) in [
            (lag(0, Some(0)), "orders running  5 records/s  1,234,567 read  epoch 42  no checkpoint yet"),
            (lag(7, None), "orders running  5 records/s  1,234,567 read  7 behind  epoch 42  no checkpoint yet"),
            (
                lag(1_234, Some(5_100)),
                "orders running  5 records/s  1,234,567 read  1,234 behind by 5.1s  epoch 42  no checkpoint yet",
            ),
            (restore(0, None), "orders restoring  0 of 5,678 changelog records read"),
            (restore(1_234, Some(11_001)), "orders restoring  1,234 of 5,678 changelog records read, about 12s left"),
        ] {
            assert_eq!(status_line(&status, 5, 10_000_000), expected);
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_while() {
        let begin = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.add(begin, 100), 0);
        let per_second: Vec<u64> =
            (1..=20).map(|tick| rate.add(begin + REDRAW * tick, 100 + u64::from(tick) * 20)).collect();
        assert!(per_second.iter().all(|rate| (99..=100).contains(rate)), "{per_second:?}");
        let idle: Vec<u64> = (21..=60).map(|tick| rate.add(begin + REDRAW * tick, 500)).collect();
        assert_eq!(idle.last(), Some(&0), "{idle:?}");
        assert!(rate.samples.len() <= 17, "{}", rate.samples.len());
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }
}
