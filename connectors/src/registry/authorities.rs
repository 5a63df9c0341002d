//! Whose signature makes a server's certificate good.

use std::fmt;
use std::path::Path;

use thalweg_core::{Error, Result};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// Certificates of authorities.
#[derive(Clone)]
pub struct Authorities(Vec<Certificate<'static>>);

impl Authorities {
    /// Those of a file in PEM: what stands between `BEGIN CERTIFICATE` and `END CERTIFICATE`, once or more often.
    ///
    /// Errors: `not-found` and the like; `ca` where it has none, or one that is damaged.
    pub fn of_file(path: &Path) -> Result<Self> {
        let pem = std::fs::read(path).map_err(|error| Error::io(format!("certificates {}", path.display()), error))?;
        let wrong = |why: &str| {
            let text = format!("{}: {why}; give certificates in PEM, -----BEGIN CERTIFICATE-----", path.display());
            Err(Error::user("ca", text))
        };
        let mut found = Vec::new();
        for item in parse_pem(&pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => found.push(certificate),
                Ok(_) => {}
                Err(error) => return wrong(&error.to_string()),
            }
        }
        if found.is_empty() { wrong("it has no certificate") } else { Ok(Self(found)) }
    }

    /// These and no others.
    pub(super) fn roots(&self) -> RootCerts {
        RootCerts::new_with_certs(&self.0)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}
