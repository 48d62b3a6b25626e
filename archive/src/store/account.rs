//! Settings that people already have: the environment variables and files of the cloud providers' own tools.
//!
//! Owns: what each service takes from there when the URL does not say it, and in which order. The credentials
//! themselves (profiles, shared files, instance and web identity, application default credentials) are looked up and
//! renewed by the driver's signer, which reads the process's environment; only what it does not know is mapped here.
//! Refuses: printing a value. Reads one small file (`~/.aws/config`).

use std::{collections::BTreeMap, io::ErrorKind, path::PathBuf};

use super::{environment::Environment, services::Settings};
use crate::{
    code::Code,
    error::{Error, Result},
};

fn set_default(settings: &mut Settings, name: &str, value: Option<&str>) {
    if let Some(value) = value
        && !settings.contains_key(name)
    {
        settings.insert(name.to_owned(), value.to_owned());
    }
}

/// AWS S3 and what speaks like it. Endpoint and region: URL, environment, profile; a region that is still missing is
/// asked from the store when it is opened.
pub(super) fn aws(env: &Environment, settings: &mut Settings) -> Result<()> {
    let keys = (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY"));
    if let (Some(id), Some(secret)) = keys {
        // The signer would silently prefer the keys to the profile that was asked for.
        if settings.contains_key("profile") {
            return Err(Error::new(Code::StoreUrl, "choosing the credentials for S3").hint(
                "the URL names a profile, but AWS_ACCESS_KEY_ID is set and would be used instead: unset it, or leave out profile=",
            ));
        }
        set_default(settings, "access_key_id", Some(id));
        set_default(settings, "secret_access_key", Some(secret));
        set_default(settings, "session_token", env.get("AWS_SESSION_TOKEN"));
    }
    let profile = settings.get("profile").map(String::as_str);
    let profile =
        profile.or_else(|| env.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])).unwrap_or("default").to_owned();
    let file = aws_profile(env, &profile)?;
    let in_file = |name: &str| file.get(name).map(String::as_str);
    let endpoint = env.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_S3_ENDPOINT", "AWS_ENDPOINT"]);
    set_default(settings, "endpoint", endpoint.or_else(|| in_file("endpoint_url")));
    let region = env.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    set_default(settings, "region", region.or_else(|| in_file("region")));
    if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        set_default(settings, "disable_ec2_metadata", Some("true"));
    }
    Ok(())
}

/// One profile of `~/.aws/config` (or `AWS_CONFIG_FILE`); nothing when there is no such file.
fn aws_profile(env: &Environment, profile: &str) -> Result<BTreeMap<String, String>> {
    let path = match (env.get("AWS_CONFIG_FILE"), env.get("HOME")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(home)) => PathBuf::from(home).join(".aws/config"),
        (None, None) => return Ok(BTreeMap::new()),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(ini_section(&text, profile)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(crate::error::io("reading the AWS configuration", &path, e)),
    }
}

/// The plain settings in `[default]` or `[profile NAME]`; nested ones (indented) belong to other services' keys.
fn ini_section(text: &str, profile: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[').and_then(|h| h.split(']').next()) {
            let header = header.trim();
            let name = header.strip_prefix("profile").filter(|n| n.starts_with(char::is_whitespace)).map(str::trim);
            inside =
                name.unwrap_or(header).trim_matches(['"', '\'']) == profile && (name.is_some() || header == "default");
        } else if inside
            && !line.starts_with(char::is_whitespace)
            && let Some((name, value)) = trimmed.split_once('=')
            && !value.trim().is_empty()
        {
            found.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// Azure Blob Storage. A connection string comes first, as in Azure's own tools; an account without an endpoint is
/// one of the public cloud.
pub(super) fn azure(env: &Environment, settings: &mut Settings) -> Result<()> {
    if let Some(text) = env.get("AZURE_STORAGE_CONNECTION_STRING") {
        for (name, value) in connection_string(text)? {
            set_default(settings, name, Some(&value));
        }
    }
    set_default(settings, "account_name", env.first(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]));
    let has_credential = settings.contains_key("account_key") || settings.contains_key("sas_token");
    if !has_credential {
        let keys = ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY"];
        match env.first(&keys) {
            Some(key) => set_default(settings, "account_key", Some(key)),
            None => set_default(settings, "sas_token", env.get("AZURE_STORAGE_SAS_TOKEN")),
        }
    }
    // Copied from the portal it begins like a query.
    if let Some(token) = settings.get_mut("sas_token")
        && let Some(rest) = token.strip_prefix('?')
    {
        *token = rest.to_owned();
    }
    set_default(settings, "endpoint", env.first(&["AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_STORAGE_ENDPOINT"]));
    if let Some(account) = settings.get("account_name").cloned() {
        set_default(settings, "endpoint", Some(&format!("https://{account}.blob.core.windows.net")));
    }
    if settings.contains_key("account_key") && !settings.contains_key("account_name") && !account_in_endpoint(settings)
    {
        return Err(Error::new(Code::StoreUrl, "choosing the account for Azure")
            .hint("there is a key, but not whose: set AZURE_STORAGE_ACCOUNT_NAME, or give ?account_name="));
    }
    if !settings.contains_key("endpoint") {
        return Err(Error::new(Code::StoreUrl, "choosing the account for Azure").hint(
            "give ?account_name=NAME or ?endpoint=https://NAME.blob.core.windows.net, or set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING",
        ));
    }
    Ok(())
}

/// Whether the driver can read the account off the endpoint.
fn account_in_endpoint(settings: &Settings) -> bool {
    settings.get("endpoint").is_some_and(|e| e.contains(".blob."))
}

/// The settings in an Azure connection string. Its text is never part of an error: it holds the key.
fn connection_string(text: &str) -> Result<Vec<(&'static str, String)>> {
    let malformed = |what: &'static str| {
        Error::new(Code::StoreUrl, "reading AZURE_STORAGE_CONNECTION_STRING").with("reason", what).hint(
            "it looks like DefaultEndpointsProtocol=https;AccountName=NAME;AccountKey=KEY;EndpointSuffix=core.windows.net",
        )
    };
    let mut fields = BTreeMap::new();
    for field in text.split(';').map(str::trim).filter(|f| !f.is_empty()) {
        // Keys and tokens hold '=' themselves: only the first one separates.
        let (name, value) = field.split_once('=').ok_or_else(|| malformed("a field without '='"))?;
        fields.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let field = |name: &str| fields.get(name).cloned().filter(|v| !v.is_empty());
    if field("usedevelopmentstorage").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Err(malformed("the storage emulator's short form is not supported; write out its endpoint and key"));
    }
    let mut settings = Vec::new();
    let account = field("accountname");
    match (field("blobendpoint"), &account) {
        (Some(endpoint), _) => settings.push(("endpoint", endpoint.trim_end_matches('/').to_owned())),
        (None, Some(account)) => {
            let protocol = field("defaultendpointsprotocol").unwrap_or_else(|| "https".to_owned());
            let suffix = field("endpointsuffix").unwrap_or_else(|| "core.windows.net".to_owned());
            settings.push(("endpoint", format!("{protocol}://{account}.blob.{suffix}")));
        }
        (None, None) => return Err(malformed("neither AccountName nor BlobEndpoint")),
    }
    settings.extend(account.map(|a| ("account_name", a)));
    match (field("accountkey"), field("sharedaccesssignature")) {
        (Some(key), _) => settings.push(("account_key", key)),
        (None, Some(token)) => settings.push(("sas_token", token)),
        (None, None) => {}
    }
    Ok(settings)
}

/// Google Cloud Storage: application default credentials are the signer's business altogether.
pub(super) fn google(_env: &Environment, _settings: &mut Settings) -> Result<()> {
    Ok(())
}

/// Servers with the service's usual port where none is given.
fn with_port(servers: &str, port: &str) -> String {
    let one = |server: &str| if server.contains(':') { server.to_owned() } else { format!("{server}:{port}") };
    servers.split(',').map(one).collect::<Vec<_>>().join(",")
}

fn refuse_user(place: &str, instead: &'static str) -> Result<()> {
    if place.contains('@') {
        Err(Error::new(Code::StoreUrl, "choosing the server").on(place).hint(instead))
    } else {
        Ok(())
    }
}

/// HDFS. Who we are, Kerberos included, is the client's business: `HADOOP_USER_NAME`, the ticket cache, and the files
/// in `HADOOP_CONF_DIR`.
pub(super) fn hdfs(_env: &Environment, settings: &mut Settings) -> Result<()> {
    if let Some(place) = settings.get_mut("name_node") {
        refuse_user(place, "set HADOOP_USER_NAME instead of writing the user into the URL")?;
        *place = format!("hdfs://{}", with_port(place, "8020"));
    }
    Ok(())
}

/// HDFS over HTTP.
pub(super) fn webhdfs(env: &Environment, settings: &mut Settings) -> Result<()> {
    let scheme = match settings.remove("tls").as_deref() {
        None | Some("false") => "http",
        Some("true") => "https",
        Some(_) => return Err(Error::new(Code::StoreUrl, "reading the option tls").hint("tls is true or false")),
    };
    if let Some(place) = settings.get_mut("endpoint") {
        refuse_user(place, "write webhdfs://host:port/path?user_name=NAME")?;
        *place = format!("{scheme}://{}", with_port(place, if scheme == "http" { "9870" } else { "9871" }));
    }
    set_default(settings, "user_name", env.get("HADOOP_USER_NAME"));
    set_default(settings, "delegation", env.get("PITR_WEBHDFS_DELEGATION"));
    // Batches came with Hadoop 2.8, and some gateways have none.
    set_default(settings, "disable_list_batch", Some("true"));
    Ok(())
}

/// SFTP: `ssh` knows keys, agents, jump hosts and known hosts.
pub(super) fn sftp(_env: &Environment, settings: &mut Settings) -> Result<()> {
    const STRATEGIES: [&str; 3] = ["strict", "add", "accept"];
    if settings.get("known_hosts_strategy").is_some_and(|s| !STRATEGIES.contains(&s.as_str())) {
        return Err(Error::new(Code::StoreUrl, "reading the option known_hosts_strategy")
            .hint("it is strict (the host must be known), add (a new one is remembered) or accept (anyone)"));
    }
    let twice = settings.contains_key("user");
    if let Some(place) = settings.get_mut("endpoint") {
        if twice && place.contains('@') {
            return Err(Error::new(Code::StoreUrl, "choosing the user").hint("the user is given twice"));
        }
        *place = format!("ssh://{place}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(list: &[(&str, &str)]) -> Settings {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn env(list: &[(&'static str, &'static str)]) -> Environment {
        list.iter().copied().collect()
    }

    #[test]
    fn region_and_endpoint_come_from_url_then_environment_then_profile() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        std::fs::write(
            &config,
            "[default]\nregion = eu-west-1\n# x\n[profile  other]\nregion=eu-north-1\nendpoint_url = http://h:1\ns3 =\n  region = wrong\n[profile broken\n",
        )
        .unwrap();
        let path = config.to_str().unwrap();
        let with = |more: &[(&'static str, &'static str)], start: &[(&str, &str)]| {
            let env: Environment = more.iter().map(|(k, v)| (*k, *v)).chain([("AWS_CONFIG_FILE", path)]).collect();
            let mut settings = settings(start);
            aws(&env, &mut settings).unwrap();
            (settings.get("region").cloned().unwrap_or_default(), settings.get("endpoint").cloned().unwrap_or_default())
        };
        assert_eq!(with(&[], &[]), ("eu-west-1".into(), String::new()));
        assert_eq!(with(&[("AWS_PROFILE", "other")], &[]), ("eu-north-1".into(), "http://h:1".into()));
        assert_eq!(with(&[], &[("profile", "other")]).0, "eu-north-1");
        assert_eq!(with(&[("AWS_REGION", "a"), ("AWS_DEFAULT_REGION", "b")], &[]).0, "a");
        assert_eq!(with(&[("AWS_REGION", "a")], &[("region", "c")]).0, "c");
        assert_eq!(with(&[("AWS_ENDPOINT_URL", "x"), ("AWS_ENDPOINT_URL_S3", "y")], &[]).1, "y");
        assert_eq!(with(&[("AWS_PROFILE", "absent")], &[]).0, "");
    }

    #[test]
    fn a_profile_in_the_url_and_keys_in_the_environment_are_refused_rather_than_one_ignored() {
        let env = env(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
        let error = aws(&env, &mut settings(&[("profile", "p")])).unwrap_err();
        assert_eq!(error.code(), Code::StoreUrl);
        let mut plain = settings(&[]);
        aws(&env, &mut plain).unwrap();
        assert_eq!(plain, settings(&[("access_key_id", "a"), ("secret_access_key", "b")]));
    }

    #[test]
    fn servers_get_the_usual_port_and_contradictions_are_refused() {
        type Complete = fn(&Environment, &mut Settings) -> Result<()>;
        let cases: [(Complete, &str, &str, &str, &str); 6] = [
            (hdfs, "name_node", "nn1,nn2:9000", "", "hdfs://nn1:8020,nn2:9000"),
            (webhdfs, "endpoint", "nn", "", "http://nn:9870"),
            (webhdfs, "endpoint", "nn", "tls=true", "https://nn:9871"),
            (webhdfs, "endpoint", "nn:14000", "tls=false", "http://nn:14000"),
            (sftp, "endpoint", "me@host:22", "", "ssh://me@host:22"),
            (sftp, "endpoint", "host", "user=me", "ssh://host"),
        ];
        for (complete, setting, place, option, expected) in cases {
            let mut found = settings(&[(setting, place)]);
            found.extend(option.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())));
            complete(&env(&[]), &mut found).unwrap();
            assert_eq!(found.get(setting).map(String::as_str), Some(expected));
            assert!(!found.contains_key("tls"), "the driver does not know it");
        }
        let refused: [(Complete, &str, &str, &str); 4] = [
            (hdfs, "name_node", "me@nn", ""),
            (webhdfs, "endpoint", "nn", "tls=yes"),
            (sftp, "endpoint", "me@host", "user=you"),
            (sftp, "endpoint", "host", "known_hosts_strategy=none"),
        ];
        for (complete, setting, place, option) in refused {
            let mut found = settings(&[(setting, place)]);
            found.extend(option.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())));
            assert_eq!(complete(&env(&[]), &mut found).unwrap_err().code(), Code::StoreUrl, "{place} {option}");
        }
    }

    #[test]
    fn every_form_of_azure_credentials_becomes_settings() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Pairs, Pairs)] = &[
            (
                &[("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_KEY", "a2V5")],
                &[("account_name", "acc"), ("account_key", "a2V5"), ("endpoint", "https://acc.blob.core.windows.net")],
            ),
            (
                &[("AZURE_STORAGE_ACCOUNT_NAME", "acc"), ("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=x%3D")],
                &[
                    ("account_name", "acc"),
                    ("sas_token", "sv=1&sig=x%3D"),
                    ("endpoint", "https://acc.blob.core.windows.net"),
                ],
            ),
            (
                &[(
                    "AZURE_STORAGE_CONNECTION_STRING",
                    "DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=a2V5==;BlobEndpoint=http://127.0.0.1:1/dev/;",
                )],
                &[("account_name", "dev"), ("account_key", "a2V5=="), ("endpoint", "http://127.0.0.1:1/dev")],
            ),
            (
                &[(
                    "AZURE_STORAGE_CONNECTION_STRING",
                    "BlobEndpoint=https://acc.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x",
                )],
                &[("sas_token", "sv=1&sig=x"), ("endpoint", "https://acc.blob.core.windows.net")],
            ),
        ];
        for (variables, expected) in cases {
            let env: Environment = variables.iter().copied().collect();
            let mut found = Settings::new();
            azure(&env, &mut found).unwrap();
            assert_eq!(found, settings(expected));
        }
    }

    #[test]
    fn a_broken_connection_string_is_refused_without_showing_it() {
        for text in ["AccountKey", "AccountKey=c2VjcmV0", "hunter2;AccountName=x"] {
            let error = azure(&env(&[("AZURE_STORAGE_CONNECTION_STRING", text)]), &mut Settings::new());
            let error = error.unwrap_err();
            assert_eq!(error.code(), Code::StoreUrl);
            assert!(!format!("{error}{}", error.hint_text()).contains("hunter2"), "{error}");
            assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
        }
        assert!(azure(&env(&[]), &mut Settings::new()).unwrap_err().hint_text().contains("AZURE_STORAGE_ACCOUNT_NAME"));
    }
}
