//! A certificate authority of its own, and what the API server needs of it.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{fs, path::Path};

/// The authority's certificate: what clients trust.
pub const CA: &str = "ca.crt";
/// The authority's key.
const CA_KEY: &str = "ca.key";
/// The API server's certificate.
pub const SERVER: &str = "server.crt";
/// The API server's key.
pub const SERVER_KEY: &str = "server.key";
/// The API server's certificate for kubelets: who he is when he asks for logs.
pub const CLIENT: &str = "kubelet-client.crt";
/// Its key.
pub const CLIENT_KEY: &str = "kubelet-client.key";
/// By which the tokens of `ServiceAccount`s are checked.
pub const ACCOUNTS: &str = "accounts.pub";
/// By which they are signed.
pub const ACCOUNTS_KEY: &str = "accounts.key";

/// Makes them all in `dir`; clients may call the server by these names and addresses.
pub fn write(dir: &Path, names: &[String]) -> Result<()> {
    let put = |name: &str, text: String| fs::write(dir.join(name), text);
    let key = KeyPair::generate()?;
    let mut params = named("sidetrack-tests", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    put(CA, params.self_signed(&key)?.pem())?;
    put(CA_KEY, key.serialize_pem())?;
    let authority = Issuer::new(params, key);

    let key = KeyPair::generate()?;
    let mut params = named("kube-apiserver", names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    put(SERVER, params.signed_by(&key, &authority)?.pem())?;
    put(SERVER_KEY, key.serialize_pem())?;

    let key = KeyPair::generate()?;
    let mut params = named("kube-apiserver-kubelet-client", &[])?;
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    put(CLIENT, params.signed_by(&key, &authority)?.pem())?;
    put(CLIENT_KEY, key.serialize_pem())?;

    let key = KeyPair::generate()?;
    put(ACCOUNTS, key.public_key_pem())?;
    put(ACCOUNTS_KEY, key.serialize_pem())?;
    Ok(())
}

fn named(name: &str, others: &[String]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(others)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
