//! The certification authorities that are trusted at the token endpoint and at the API.
//!
//! These are the authorities of the system and of the configuration's `ca`. The variables `SSL_CERT_FILE` and `SSL_CERT_DIR`
//! replace those of the system. On a system without any, Mozilla's are used, which are part of the program.

use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_refresh::BoxError;

/// Returns the TLS configuration of a client. `ca` is a PEM file.
///
/// # Errors
///
/// A file cannot be read, or has no certificate that can be used.
pub fn tls(ca: Option<&Path>) -> Result<ClientConfig, BoxError> {
    let mut roots = system_roots()?;
    if let Some(path) = ca {
        add(&mut roots, path).map_err(|error| format!("field `ca`: {} {error}", path.display()))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, BoxError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(path) = env::var_os(variable) {
            let error = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            let path = path.display();
            return Err(format!("{variable}: {path} has no certificate{error}").into());
        }
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let pem = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    // A byte order mark would hide the first certificate.
    let pem = pem.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&pem);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "is damaged: its PEM cannot be read".to_owned())?;
    if certificates.is_empty() {
        let has = |text: &str| pem.windows(text.len()).any(|window| window == text.as_bytes());
        return Err(match has("-----BEGIN ") {
            true if has("PRIVATE KEY-----") => "has a private key and no certificate",
            true => "has no certificate",
            false => "is not PEM: it must have a line `-----BEGIN CERTIFICATE-----`",
        }
        .to_owned());
    }
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            format!("has a certificate that cannot be used (number {}): {error}", index + 1)
        })?;
    }
    Ok(())
}
