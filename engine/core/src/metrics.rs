//! The metrics of one process, by the names of the contract.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram as PromHistogram;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;
type FloatGauge = Gauge<f64, AtomicU64>;
type Histograms = Family<Labels, PromHistogram, fn() -> PromHistogram>;

/// Every metric family of a process. Cloning shares it.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Families>,
}

struct Families {
    registry: Mutex<Registry>,
    counters: Mutex<Vec<(&'static str, Family<Labels, Counter>)>>,
    gauges: Mutex<Vec<(&'static str, Family<Labels, FloatGauge>)>>,
    histograms: Mutex<Vec<(&'static str, Histograms)>>,
    refreshes: Mutex<Vec<Refresh>>,
}

type Refresh = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// One time series: a counter or a gauge; cheap to update from any thread.
#[derive(Clone)]
pub enum Series {
    /// Only grows.
    Counter(Counter),
    /// Goes up and down.
    Gauge(FloatGauge),
}

impl Series {
    /// Adds to it.
    #[inline]
    pub fn add(&self, by: u64) {
        match self {
            Series::Counter(counter) => {
                counter.inc_by(by);
            }
            Series::Gauge(gauge) => {
                gauge.inc_by(by as f64);
            }
        }
    }

    /// Sets a gauge; a counter keeps its value.
    #[inline]
    pub fn set(&self, to: f64) {
        if let Series::Gauge(gauge) = self {
            gauge.set(to);
        }
    }

    /// The current value.
    pub fn get(&self) -> f64 {
        match self {
            Series::Counter(counter) => counter.get() as f64,
            Series::Gauge(gauge) => gauge.get(),
        }
    }
}

/// A distribution of seconds.
#[derive(Clone)]
pub struct Histogram(PromHistogram);

impl Histogram {
    /// Adds one observation, in seconds.
    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

fn seconds_buckets() -> PromHistogram {
    PromHistogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            inner: Arc::new(Families {
                registry: Mutex::new(Registry::with_prefix("thalweg")),
                counters: Mutex::default(),
                gauges: Mutex::default(),
                histograms: Mutex::default(),
                refreshes: Mutex::default(),
            }),
        }
    }
}

impl Metrics {
    /// The counter `thalweg_NAME_total` with these labels; made at first use. `help` is read by people.
    pub fn counter(&self, name: &'static str, help: &str, labels: &[(&'static str, &str)]) -> Series {
        let mut families = self.inner.counters.lock();
        let family = match families.iter().find(|(own, _)| *own == name) {
            Some((_, family)) => family.clone(),
            None => {
                let family = Family::<Labels, Counter>::default();
                self.inner.registry.lock().register(name, help, family.clone());
                families.push((name, family.clone()));
                family
            }
        };
        Series::Counter(family.get_or_create_owned(&own(labels)))
    }

    /// The gauge `thalweg_NAME` with these labels; made at first use.
    pub fn gauge(&self, name: &'static str, help: &str, labels: &[(&'static str, &str)]) -> Series {
        let mut families = self.inner.gauges.lock();
        let family = match families.iter().find(|(own, _)| *own == name) {
            Some((_, family)) => family.clone(),
            None => {
                let family = Family::<Labels, FloatGauge>::default();
                self.inner.registry.lock().register(name, help, family.clone());
                families.push((name, family.clone()));
                family
            }
        };
        Series::Gauge(family.get_or_create_owned(&own(labels)))
    }

    /// The histogram `thalweg_NAME` of seconds with these labels; made at first use.
    pub fn histogram(&self, name: &'static str, help: &str, labels: &[(&'static str, &str)]) -> Histogram {
        let mut families = self.inner.histograms.lock();
        let family = match families.iter().find(|(own, _)| *own == name) {
            Some((_, family)) => family.clone(),
            None => {
                let family = Family::new_with_constructor(seconds_buckets as fn() -> PromHistogram);
                self.inner.registry.lock().register(name, help, family.clone());
                families.push((name, family.clone()));
                family
            }
        };
        Histogram(family.get_or_create_owned(&own(labels)))
    }

    /// Calls `refresh` at the beginning of every [`Metrics::render`]: for values that need to be computed only when somebody looks.
    pub fn before_render(&self, refresh: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.inner.refreshes.lock().push(Arc::new(refresh));
    }

    /// Everything in the text format of Prometheus (OpenMetrics).
    pub fn render(&self) -> String {
        let refreshes = self.inner.refreshes.lock().clone();
        refreshes.iter().for_each(|refresh| refresh(self));
        let mut out = String::new();
        encode(&mut out, &self.inner.registry.lock()).expect("writing to a String cannot fail");
        out
    }
}

fn own(labels: &[(&'static str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_shared_and_rendered() {
        let metrics = Metrics::default();
        let labels = [("job", "flights"), ("source", "flights")];
        metrics.counter("records_in", "Records read", &labels).add(3);
        metrics.counter("records_in", "Records read", &labels).add(4);
        metrics.before_render(|metrics| {
            metrics.gauge("epochs_open", "Epochs that are not closed", &[("job", "flights")]).set(2.0);
        });
        let text = metrics.render();
        assert!(text.contains("thalweg_records_in_total{job=\"flights\",source=\"flights\"} 7"), "{text}");
        assert!(text.contains("thalweg_epochs_open{job=\"flights\"} 2"), "{text}");
    }
}
