//! Keys and passwords of a secured listener.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use native_tls::{Identity, TlsAcceptor};

use super::installation::java;

/// Who may sign on at a secured listener.
pub const USER: &str = "thalweg";
/// With which password.
pub const PASSWORD: &str = "pass-for-tests";

const STORE_PASSWORD: &str = "store-for-tests";
const LOGIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required";

/// A key of the broker in a store for Java, and its certificate for clients.
#[derive(Clone, Debug)]
pub struct Secrets {
    store: PathBuf,
    certificate: PathBuf,
}

impl Secrets {
    /// Makes them in a folder, with the `keytool` of the Java that runs the broker. They are for the host 127.0.0.1.
    pub fn make(folder: &Path) -> Self {
        let secrets = Self { store: folder.join("broker.p12"), certificate: folder.join("broker.pem") };
        let mut make = secrets.keytool("-genkeypair", folder);
        make.args(["-storetype", "PKCS12", "-keyalg", "RSA", "-keysize", "2048", "-validity", "3650"]);
        make.args(["-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1,dns:localhost", "-ext", "bc=ca:true"]);
        run(make, folder);
        let mut export = secrets.keytool("-exportcert", folder);
        export.arg("-rfc").arg("-file").arg(&secrets.certificate);
        run(export, folder);
        secrets
    }

    fn keytool(&self, what: &str, folder: &Path) -> Command {
        let mut command = Command::new(java("keytool"));
        let log = File::create(folder.join("keytool.log")).expect("a temporary file");
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a file can be shared")).stdout(log);
        command.args([what, "-alias", "broker", "-storepass", STORE_PASSWORD]).arg("-keystore").arg(&self.store);
        command
    }

    /// The certificate (PEM) that a client must trust: librdkafka's `ssl.ca.location`.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A server that shows the certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let store = fs::read(&self.store).expect("the store was made");
        let identity = Identity::from_pkcs12(&store, STORE_PASSWORD).expect("the store was made");
        TlsAcceptor::new(identity).expect("a key with its certificate")
    }

    /// What librdkafka and programs on it are told to sign on.
    pub fn client_properties(&self) -> BTreeMap<String, String> {
        properties(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
            ("ssl.ca.location", &self.certificate.display().to_string()),
        ])
    }

    /// The same for Java.
    pub(super) fn java_properties(&self) -> BTreeMap<String, String> {
        properties(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.jaas.config", &format!("{LOGIN} username=\"{USER}\" password=\"{PASSWORD}\";")),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", &self.certificate.display().to_string()),
        ])
    }

    pub(super) fn broker_properties(&self) -> BTreeMap<String, String> {
        properties(&[
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.secure.plain.sasl.jaas.config", &format!("{LOGIN} user_{USER}=\"{PASSWORD}\";")),
            ("ssl.keystore.type", "PKCS12"),
            ("ssl.keystore.location", &self.store.display().to_string()),
            ("ssl.keystore.password", STORE_PASSWORD),
            ("ssl.key.password", STORE_PASSWORD),
        ])
    }
}

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn run(mut command: Command, folder: &Path) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let log = || fs::read_to_string(folder.join("keytool.log")).unwrap_or_default();
    assert!(status.success(), "{command:?} failed: {}", log());
}
