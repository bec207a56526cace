//! Certificates: whom a connection with TLS believes, and what it shows.
//!
//! Files are read once, when the backend is built, and refused there if they could not serve: what the
//! client is given can be used. Errors name the field and the file, never what stands in it.
//!
//! Always true: a server's certificate is checked. There is no setting that leaves it out.

use std::path::Path;
use std::sync::Arc;

use redis::{ClientTlsConfig, RedisError, TlsCertificates};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, RootCertStore};

use super::RedisConfig;
use crate::error::{Error, ErrorKind, Result};

/// Sees to it that there is a provider of cryptography, which the client expects.
pub(super) fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread was first, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// What the files of `config` hold; `None` when it names none. `path` is where its section stands.
///
/// # Errors
/// [`ErrorKind::Config`] naming field and file, when one cannot be read or used.
pub(super) fn certificates(config: &RedisConfig, path: &str) -> Result<Option<TlsCertificates>> {
    let authorities = match &config.redis_ca_file {
        Some(file) => Some(read_authorities(file, &format!("{path}.redis_ca_file"))?),
        None => None,
    };
    let client = match (
        &config.redis_client_cert_file,
        &config.redis_client_key_file,
    ) {
        (Some(certificate), Some(key)) => Some(read_client(certificate, key, path)?),
        _ => None,
    };
    if authorities.is_none() && client.is_none() {
        return Ok(None);
    }
    Ok(Some(TlsCertificates {
        client_tls: client,
        root_cert: authorities,
    }))
}

fn read_authorities(file: &Path, field: &str) -> Result<Vec<u8>> {
    let pem = read(file, field)?;
    let mut store = RootCertStore::empty();
    for authority in read_chain(&pem, file, field)? {
        store
            .add(authority)
            .map_err(|_| unusable(file, field, "a certificate in it cannot be read"))?;
    }
    Ok(pem)
}

fn read_client(certificate: &Path, key: &Path, path: &str) -> Result<ClientTlsConfig> {
    let certificate_field = format!("{path}.redis_client_cert_file");
    let key_field = format!("{path}.redis_client_key_file");
    let client = ClientTlsConfig {
        client_cert: read(certificate, &certificate_field)?,
        client_key: read(key, &key_field)?,
    };
    let chain = read_chain(&client.client_cert, certificate, &certificate_field)?;
    let secret = PrivateKeyDer::from_pem_slice(&client.client_key).map_err(|_| {
        let problem = "it holds no private key in PEM, or an encrypted one";
        unusable(key, &key_field, problem)
    })?;
    install_provider();
    // Made for its checks alone: otherwise a key of another certificate is found at the first connection.
    ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, secret)
        .map_err(|error| match error {
            rustls::Error::InvalidCertificate(_) => {
                let problem = "the certificate in it cannot be read";
                unusable(certificate, &certificate_field, problem)
            }
            rustls::Error::InconsistentKeys(_) => {
                unusable(key, &key_field, "it is the key of another certificate")
            }
            _ => unusable(key, &key_field, "the key in it cannot be used"),
        })?;
    Ok(client)
}

fn read(file: &Path, field: &str) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| {
        Error::new(ErrorKind::Config, "a file for TLS cannot be read")
            .with("field", field)
            .with("value", file.display())
            .caused_by(error)
    })
}

/// The certificates in a file, one at least.
fn read_chain(pem: &[u8], file: &Path, field: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        // The parser's words may quote the file.
        _ => Err(unusable(file, field, "it holds no certificate in PEM")),
    }
}

fn unusable(file: &Path, field: &str, problem: &'static str) -> Error {
    Error::new(ErrorKind::Config, "a file for TLS cannot be used")
        .with("field", field)
        .with("value", file.display())
        .with("problem", problem)
}

/// Who does not take whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// We do not take the server's.
    Ours,
    /// The server does not take ours, or misses one.
    Theirs,
}

/// Whether a connection failed for a certificate, which trying again does not change.
pub(super) fn refusal(error: &RedisError) -> Option<Refusal> {
    type Shared = Arc<dyn std::error::Error + Send + Sync>;

    let source = std::error::Error::source(error)?;
    let source = source.downcast_ref::<Shared>()?;
    let source = source.downcast_ref::<std::io::Error>()?.get_ref()?;
    match source.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(_) => Some(Refusal::Ours),
        rustls::Error::AlertReceived(
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        ) => Some(Refusal::Theirs),
        _ => None,
    }
}
