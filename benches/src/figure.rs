//! One measured number, what it is to be, and how both are printed.

use clap::ValueEnum;
use serde::Serialize;

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// A measured number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) figure: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reached: Option<bool>,
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Text,
    Json,
}

/// Prints figures as they come, and remembers whether all were reached.
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    pub(crate) form: Form,
    pub(crate) missed: usize,
}

impl Report {
    /// A number without a target.
    pub(crate) fn note(&mut self, figure: &str, value: f64, unit: &'static str) {
        self.print(figure, value, unit, None);
    }

    /// A number that is to be at least, or at most, something.
    pub(crate) fn check(&mut self, figure: &str, value: f64, unit: &'static str, target: Target) {
        self.print(figure, value, unit, Some(target));
    }

    fn print(&mut self, figure: &str, value: f64, unit: &'static str, target: Option<Target>) {
        let reached = target.map(|target| match target {
            Target::AtLeast(least) => value >= least,
            Target::AtMost(most) => value <= most,
        });
        self.missed += usize::from(reached == Some(false));
        let figure = Figure { bench: self.bench, figure: figure.to_owned(), value, unit, target, reached };
        match self.form {
            Form::Json => println!("{}", serde_json::to_string(&figure).expect("plain data")),
            Form::Text => println!("{}", text(&figure)),
        }
    }
}

fn text(figure: &Figure) -> String {
    let number = number(figure.value);
    let target = match figure.target {
        None => String::new(),
        Some(Target::AtLeast(least)) => format!("at least {least} {}", figure.unit),
        Some(Target::AtMost(most)) => format!("at most {most} {}", figure.unit),
    };
    let verdict = match figure.reached {
        None => "",
        Some(true) => "reached",
        Some(false) => "MISSED",
    };
    let line = format!(
        "{:<12} {:<34} {number:>10} {:<22} {:<34} {verdict}",
        figure.bench,
        figure.figure,
        figure.unit,
        target.trim_end()
    );
    line.trim_end().to_owned()
}

/// Three digits, with k or M for thousands and millions.
fn number(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        big if big >= 1e6 => (value / 1e6, " M"),
        big if big >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{suffix}")
}

/// The middle of some numbers.
pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Of sorted numbers, the one below which this share of them lies.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
