//! One librdkafka handle: made from properties, its log and its errors heard, destroyed at the end.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::bindings as sys;
use sys::{rd_kafka_conf_res_t, rd_kafka_resp_err_t, rd_kafka_type_t};
use thalweg_core::{Blame, Error, Result};

use super::delivery::Deliveries;
use super::error::kafka_error;

/// Room for librdkafka's messages.
const MESSAGE_BYTES: usize = 512;

/// What properties take that have few values, of which a wrong one is the commonest mistake.
const VALUES: [(&str, &str); 3] = [
    ("security.protocol", "plaintext, ssl, sasl_plaintext or sasl_ssl"),
    ("compression.type", "none, gzip, snappy, lz4 or zstd"),
    ("compression.codec", "none, gzip, snappy, lz4 or zstd"),
];

/// Properties before a handle is made of them.
pub(super) struct NativeConfig(*mut sys::rd_kafka_conf_t);

impl NativeConfig {
    pub(super) fn new() -> Self {
        // Safety: no precondition; the result is owned.
        Self(unsafe { sys::rd_kafka_conf_new() })
    }

    /// Sets a property; without a value it is only checked that there is such a one.
    ///
    /// Errors: `kafka-property` where librdkafka does not know it or refuses the value, which may be a secret and is not shown.
    pub(super) fn set<'v>(&mut self, name: &str, value: impl Into<Option<&'v str>>) -> Result<()> {
        let value = value.into();
        let refused = |why: &str| Error::user("kafka-property", format!("[kafka.properties] {name:?}: {why}"));
        let (Ok(name_c), Ok(value_c)) = (CString::new(name), CString::new(value.unwrap_or_default())) else {
            return Err(refused("a zero byte has no place in it"));
        };
        let mut message = [0 as c_char; MESSAGE_BYTES];
        // Safety: both strings end with a zero byte, the message has the given room.
        let outcome = unsafe {
            sys::rd_kafka_conf_set(self.0, name_c.as_ptr(), value_c.as_ptr(), message.as_mut_ptr(), message.len())
        };
        match outcome {
            rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => {
                let near = self.nearest(name).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
                let names = "its names are in librdkafka's CONFIGURATION.md";
                Err(refused(&format!("librdkafka has no such property{near}; {names}")))
            }
            rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID if value.is_none() => Ok(()),
            rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => {
                let values = VALUES.iter().find(|(of, _)| *of == name);
                let values = values.map(|(_, values)| format!("; it takes {values}")).unwrap_or_default();
                Err(refused(&format!("librdkafka refuses the value{values}")))
            }
        }
    }

    /// The property whose name is nearly this one.
    fn nearest(&self, name: &str) -> Option<String> {
        let mut count = 0;
        // Safety: the handle lives; names and values are copied before their list is freed.
        let names: Vec<String> = unsafe {
            let dump = sys::rd_kafka_conf_dump(self.0, &mut count);
            let name = |at: usize| CStr::from_ptr(*dump.add(at)).to_string_lossy().into_owned();
            let names = (0..count).step_by(2).map(name).collect();
            sys::rd_kafka_conf_dump_free(dump, count);
            names
        };
        let near = names.into_iter().map(|known| (strsim::damerau_levenshtein(&known, name), known)).min();
        near.filter(|(distance, known)| distance * 3 <= known.len().max(name.len())).map(|(_, known)| known)
    }
}

impl Drop for NativeConfig {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // Safety: it is owned, and not yet taken by a handle.
            unsafe { sys::rd_kafka_conf_destroy(self.0) };
        }
    }
}

/// What a handle is told by librdkafka's threads.
#[derive(Default)]
pub(super) struct Heard {
    /// A connection was lost since this was last cleared.
    pub(super) disturbed: AtomicBool,
    /// The last error that a broker or a connection gave, that says something.
    pub(super) last: Mutex<Option<Error>>,
    /// What became of produced records.
    pub(super) deliveries: Mutex<Deliveries>,
}

/// A handle.
pub(super) struct Client {
    pub(super) rk: *mut sys::rd_kafka_t,
    heard: Arc<Heard>,
}

// Safety: librdkafka's handles may be used from any thread, also at the same time.
unsafe impl Send for Client {}
// Safety: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Makes a handle; nothing is connected yet.
    ///
    /// Errors: `kafka-property` where librdkafka refuses the properties together.
    pub(super) fn new(kind: rd_kafka_type_t, mut config: NativeConfig) -> Result<Self> {
        let heard = Arc::new(Heard::default());
        let mut message = [0 as c_char; MESSAGE_BYTES];
        // Safety: the callbacks get the opaque pointer, which lives until the handle is destroyed (see `drop`).
        let rk = unsafe {
            sys::rd_kafka_conf_set_opaque(config.0, Arc::as_ptr(&heard).cast_mut().cast());
            sys::rd_kafka_conf_set_error_cb(config.0, Some(on_error));
            sys::rd_kafka_conf_set_log_cb(config.0, Some(on_log));
            if kind == rd_kafka_type_t::RD_KAFKA_PRODUCER {
                sys::rd_kafka_conf_set_dr_msg_cb(config.0, Some(on_delivery));
            }
            sys::rd_kafka_new(kind, config.0, message.as_mut_ptr(), message.len())
        };
        if rk.is_null() {
            // Safety: librdkafka ends its message with a zero byte.
            let why = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy();
            return Err(Error::user("kafka-property", format!("[kafka.properties]: {why}{}", advice(&why))));
        }
        // The handle has taken the properties.
        config.0 = std::ptr::null_mut();
        Ok(Self { rk, heard })
    }

    /// What its threads and callbacks have told.
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Lets callbacks run that wait for a thread of ours, for at most so long.
    pub(super) fn poll(&self, limit_ms: c_int) {
        // Safety: the handle lives.
        unsafe { sys::rd_kafka_poll(self.rk, limit_ms) };
    }

    /// Turns what a call returned into an error of ours.
    ///
    /// # Safety
    /// `error` is null or an error that this call may destroy.
    pub(super) unsafe fn check(error: *mut sys::rd_kafka_error_t, doing: &str) -> Result<(), Refused> {
        if error.is_null() {
            return Ok(());
        }
        // Safety: it is no null pointer, and is destroyed after its last use.
        unsafe {
            let text = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            let refused = Refused {
                error: kafka_error(sys::rd_kafka_error_code(error), doing, &text),
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            };
            sys::rd_kafka_error_destroy(error);
            Err(refused)
        }
    }
}

/// What to do where librdkafka does not take properties together.
fn advice(why: &str) -> &'static str {
    match why {
        why if why.contains("No provider for SASL mechanism") => {
            "; set \"sasl.mechanism\" to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        }
        why if why.contains(".location failed") => "; check that the file is there, can be read, and is in PEM",
        _ => "",
    }
}

/// An error of a call that returns one with properties.
pub(super) struct Refused {
    pub(super) error: Error,
    /// The same call may be repeated on the same handle.
    pub(super) retriable: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Safety: it is destroyed once; afterwards no callback runs, and the opaque pointer may go.
        unsafe { sys::rd_kafka_destroy_flags(self.rk, sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE as c_int) };
    }
}

unsafe extern "C" fn on_error(_: *mut sys::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // Safety: the opaque pointer is that of `Client::new`, the reason ends with a zero byte.
    let (heard, reason) = unsafe { (&*opaque.cast::<Heard>(), CStr::from_ptr(reason).to_string_lossy()) };
    // Safety: librdkafka hands out its own codes, of which this enum has all.
    let code = unsafe { std::mem::transmute::<c_int, rd_kafka_resp_err_t>(code) };
    heard.disturbed.store(true, Ordering::Relaxed);
    tracing::debug!("librdkafka: {reason}");
    let error = kafka_error(code, "the connection to Kafka", &reason);
    let mut last = heard.last.lock();
    // That all brokers are down follows what is wrong with one of them, and says less; so does anything behind a password that is
    // refused.
    let says_less = code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
    if last.as_ref().is_none_or(|last| last.blame() != Blame::User && !says_less) {
        *last = Some(error);
    }
}

unsafe extern "C" fn on_log(_: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    // Safety: both end with a zero byte.
    let (facility, text) =
        unsafe { (CStr::from_ptr(facility).to_string_lossy(), CStr::from_ptr(text).to_string_lossy()) };
    // Levels are those of syslog: what is worth a word to the user comes back as an error of a call.
    if level <= 3 {
        tracing::debug!("librdkafka: {facility}: {text}")
    } else {
        tracing::trace!("librdkafka: {facility}: {text}")
    }
}

unsafe extern "C" fn on_delivery(
    _: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // Safety: the opaque pointer is that of `Client::new`, the message lives during the call.
    let (heard, message) = unsafe { (&*opaque.cast::<Heard>(), &*message) };
    heard.deliveries.lock().note(message);
}
