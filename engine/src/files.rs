//! Files as a source of typed records.

use std::sync::Arc;

use thalweg_connectors::{FileSource, Format, FormattedSource, TypedValues};
use thalweg_core::Data;

/// Reads files as records of type `T`: `paths` are paths or patterns such as `"in/*.csv.gz"`, relative to the folder in which the
/// job is started. Each file is a partition, large plain ones are several; what is compressed with gzip or zstd is recognised.
///
/// The list of files and their lengths are fixed when the job is created. A record that does not fit `T` is dealt with as the job's
/// `on_error` says.
///
/// ```
/// use thalweg::prelude::*;
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Flight {
///     origin: String,
///     delay: i64,
/// }
///
/// let job = JobBuilder::new("flights")?;
/// job.source("flights", files(["flights/*.csv.gz"], Format::Csv(CsvOptions::default())))
///     .key_by(|flight: Flight| (flight.origin, flight.delay))
///     .max("worst")
///     .discard("nowhere");
/// assert_eq!(job.build()?.nodes().len(), 3);
/// # Ok::<(), thalweg::Error>(())
/// ```
pub fn files<T: Data>(paths: impl IntoIterator<Item = impl Into<String>>, format: Format) -> FormattedSource<T> {
    let raw = FileSource::new(".", paths, &format);
    FormattedSource::new(Box::new(raw), Arc::new(TypedValues::new(format)))
}
