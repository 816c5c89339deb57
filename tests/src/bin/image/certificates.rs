//! The authorities that programs in an image trust. They are Mozilla's, from the crate
//! webpki-root-certs, so that an image does not depend on the machine that made it.
//!
//! Core.

use pem::{EncodeConfig, LineEnding, Pem};

/// The path that OpenSSL and rustls read in an image of Debian, and therefore in these images.
pub const PATH: &str = "etc/ssl/certs/ca-certificates.crt";

/// Returns all certificates as PEM, in a fixed order.
pub fn bundle() -> String {
    let mut certificates: Vec<&[u8]> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|certificate| &**certificate).collect();
    certificates.sort_unstable();
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let encode = |der: &&[u8]| pem::encode_config(&Pem::new("CERTIFICATE", *der), config);
    certificates.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_in_the_bundle() {
        let bundle = bundle();
        let read = pem::parse_many(&bundle).unwrap();
        assert_eq!(read.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(read.len() > 50, "{} authorities", read.len());
        assert!(!bundle.contains('\r') && bundle.ends_with("-----END CERTIFICATE-----\n"));
    }
}
