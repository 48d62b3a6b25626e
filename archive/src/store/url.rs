//! From a URL to a store.
//!
//! Owns: the grammar of archive URLs, and refusing everything that would otherwise be ignored: a misspelt scheme or
//! option, a secret. [`parse`] does no I/O; [`open`] does.
//!
//! ```text
//! file:/abs/path   file:rel/path   /abs/path   ./rel/path
//! s3://bucket/prefix?region=eu-west-1&endpoint=https://host
//! azblob://container/prefix?account_name=NAME
//! gs://bucket/prefix
//! hdfs://namenode:8020/directory   hdfs://nn1:8020,nn2:8020/directory
//! webhdfs://namenode:9870/directory?user_name=NAME&tls=true
//! sftp://user@host:22/directory?key=/path/of/the/key
//! ```
//! Paths of `file:` are taken as they are written (no percent-decoding); option values are percent-decoded.

use std::{path::PathBuf, sync::Arc};

use super::{
    Store,
    environment::Environment,
    local::LocalStore,
    services::{OTHER_NAMES, Place, SERVICES, Service, Settings, nearest},
};
use crate::{
    clock::{Clock, SystemClock},
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// Where an archive lives, as its URL says it.
#[derive(Clone)]
pub enum Location {
    /// A directory on this machine, absolute.
    Directory(PathBuf),
    /// A place in an object store.
    Cloud(CloudLocation),
}

/// A place in an object store.
#[derive(Clone)]
pub struct CloudLocation {
    pub(super) service: &'static Service,
    pub(super) place: String,
    /// Without `/` at its ends; empty for the whole bucket.
    pub(super) prefix: String,
    /// The options of the URL. No secrets: they are refused there.
    #[cfg_attr(not(feature = "cloud"), allow(dead_code, reason = "URLs are checked also where they cannot be opened"))]
    pub(super) options: Settings,
}

impl CloudLocation {
    /// `s3://bucket/prefix`, without options.
    pub(super) fn describe(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.service.scheme(), self.place, self.prefix)
    }
}

/// The URL in its usual form, without options.
impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file:{}", path.display()),
            Self::Cloud(cloud) => f.write_str(&cloud.describe()),
        }
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What opening a store takes from outside.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Where credentials and defaults come from. The signer of the cloud services reads the process's environment
    /// beside it, for what is looked up again while a store is open (profiles, instance and web identity).
    pub environment: Environment,
    /// Decides which leftovers of crashed writers are old.
    pub clock: Arc<dyn Clock>,
}

impl OpenOptions {
    /// This process's environment and the system's clock.
    pub fn of_process() -> Self {
        Self { environment: Environment::of_process(), clock: Arc::new(SystemClock) }
    }
}

/// Opens the store that `url` names. Nothing is created; a directory or bucket that does not exist shows when it is
/// used. May ask S3 for the bucket's region.
pub async fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    match parse(url)? {
        Location::Directory(path) => {
            let clock = Arc::clone(&options.clock);
            Ok(Arc::new(super::local::blocking(move || LocalStore::open(path, &*clock)).await?))
        }
        Location::Cloud(place) if !place.service.feature.1 => Err(Error::new(Code::StoreUrl, "opening the archive")
            .on(place.describe())
            .with("feature", place.service.feature.0)
            .hint("this pitr was built without this kind of store: build it with that Cargo feature")),
        #[cfg(feature = "cloud")]
        Location::Cloud(place) => {
            let clock = Arc::clone(&options.clock);
            Ok(Arc::new(super::cloud::CloudStore::open(place, &options.environment, clock).await?))
        }
        #[cfg(not(feature = "cloud"))]
        Location::Cloud(place) => {
            Err(Error::new(Code::Internal, "opening a store that is not built in").on(place.describe()))
        }
    }
}

/// What `url` says, checked as far as that is possible without asking anybody.
pub fn parse(url: &str) -> Result<Location> {
    let refuse =
        |hint: String| Err(Error::new(Code::StoreUrl, "reading the archive's URL").on(redacted(url)).hint(hint));
    if url.starts_with('/') || url == "." || url == ".." || url.starts_with("./") || url.starts_with("../") {
        return directory(url, url);
    }
    let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return refuse(format!("a directory is written /path, ./path or file:path; known schemes: {}", schemes()));
    };
    if scheme == "file" {
        return file(url, rest);
    }
    let Some(service) = Service::of_scheme(scheme) else {
        let other = OTHER_NAMES.iter().find(|(name, _)| *name == scheme).map(|(_, ours)| *ours);
        let known = SERVICES.iter().flat_map(|s| s.schemes.iter().copied()).chain(["file"]);
        let lower = scheme.to_ascii_lowercase();
        let meant = other.or_else(|| nearest(&lower, known));
        let meant = meant.map(|m| format!("did you mean {m}:? ")).unwrap_or_default();
        return refuse(format!("{meant}known schemes: {}", schemes()));
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return refuse(format!("write {}://{}/prefix", service.scheme(), service.place.title()));
    };
    if url.contains('#') {
        return refuse("a '#' has no meaning here; write %23 inside a value".to_owned());
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, prefix) = path.split_once('/').unwrap_or((path, ""));
    if let Err(hint) = check_place(service, place) {
        return refuse(hint);
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && ObjectKey::parse(prefix).is_none() {
        return refuse(
            "the prefix may consist of letters, digits, '.', '-', '_' and single '/' between its parts".to_owned(),
        );
    }
    if prefix.is_empty() && matches!(service.place, Place::Server(_)) {
        return refuse(format!("name a directory: {}://{place}/path", service.scheme()));
    }
    let options = options(url, service, query)?;
    Ok(Location::Cloud(CloudLocation { service, place: place.to_owned(), prefix: prefix.to_owned(), options }))
}

/// Whether `place` can stand at the URL's host; else what to do.
fn check_place(service: &Service, place: &str) -> std::result::Result<(), String> {
    let instead = service.secrets.first().map_or("the environment", |(_, instead)| instead);
    let secret = || format!("credentials do not belong into a URL, where others see them; use {instead}");
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    match service.place {
        Place::Named(_) if place.contains('@') => Err(secret()),
        Place::Named(name) if place.contains(':') => {
            Err(format!("this is the place of the {name}'s name; a server is given as ?endpoint=http://host:port"))
        }
        Place::Named(_) if plain(place) => Ok(()),
        Place::Named(name) => Err(format!("the name of the {name} is missing or malformed")),
        Place::Server(_) => {
            let (user, servers) = place.rsplit_once('@').map_or((None, place), |(user, rest)| (Some(user), rest));
            if user.is_some_and(|user| user.contains([':', '@'])) {
                return Err(secret());
            }
            let server = |server: &str| match server.split_once(':') {
                Some((host, port)) => plain(host) && port.parse::<u16>().is_ok(),
                None => plain(server),
            };
            match user.is_none_or(plain) && servers.split(',').all(server) {
                true => Ok(()),
                false => Err(format!("write {}://host:port/path", service.scheme())),
            }
        }
    }
}

fn file(url: &str, rest: &str) -> Result<Location> {
    let refuse = |hint: String| Err(Error::new(Code::StoreUrl, "reading the archive's URL").on(url).hint(hint));
    if let Some((path, option)) = rest.split_once('?') {
        let name = option.split(['=', '&']).next().unwrap_or(option);
        return Err(Error::new(Code::StoreOption, "reading the archive's URL")
            .on(format_args!("file:{path}"))
            .with("option", name)
            .hint("file: has no options; a path with a '?' in it is written without file:"));
    }
    match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => directory(url, path),
        Some(path) => refuse(format!("file:// has a host before the path; write file:{path} or file:///{path}")),
        None => directory(url, rest),
    }
}

fn directory(url: &str, path: &str) -> Result<Location> {
    let malformed = || Error::new(Code::StoreUrl, "reading the archive's URL").on(url);
    if path.is_empty() || path.contains('\0') {
        return Err(malformed().hint("the path is missing"));
    }
    // Normalised so that one directory reads alike everywhere; ".." stays, it means something where links are.
    let path = std::path::absolute(path).map_err(|e| malformed().because(e))?;
    Ok(Location::Directory(path.components().collect()))
}

fn options(url: &str, service: &'static Service, query: &str) -> Result<Settings> {
    let mut options = Settings::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // What does not look like a name may be the rest of a password with a '?' in it.
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let shown = if plain { name } else { "(malformed)" };
        let refuse = |code| Error::new(code, "reading the archive's URL").on(redacted(url)).with("option", shown);
        if let Some((_, instead)) = service.secrets.iter().find(|(secret, _)| secret.eq_ignore_ascii_case(name)) {
            return Err(refuse(Code::StoreUrl)
                .hint(format!("secrets do not belong into a URL, where others see them; use {instead}")));
        }
        let known = service.options.join(", ");
        if !service.options.contains(&name) {
            let lower = name.to_ascii_lowercase();
            let meant = nearest(&lower, service.options.iter().copied());
            let meant = meant.map(|m| format!("did you mean {m}? ")).unwrap_or_default();
            return Err(refuse(Code::StoreOption).hint(format!("{meant}options of {}: {known}", service.scheme())));
        }
        let value = percent_decoded(value).filter(|v| !v.is_empty());
        let value = value.ok_or_else(|| refuse(Code::StoreUrl).hint("the option's value is missing or malformed"))?;
        if name == "endpoint" && value.split('/').nth(2).unwrap_or(&value).contains('@') {
            return Err(refuse(Code::StoreUrl).hint("credentials do not belong into a URL, where others see them"));
        }
        if options.insert(name.to_owned(), value).is_some() {
            return Err(refuse(Code::StoreUrl).hint("the option is given twice"));
        }
    }
    Ok(options)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn schemes() -> String {
    let all: Vec<_> = SERVICES.iter().map(|s| format!("{}://", s.scheme())).collect();
    format!("file:, {}", all.join(", "))
}

/// The URL without its query and without anything before an `@`: what may be shown. Where an `@` comes only later, what
/// stands before the `?` can be half a password, and nothing but the scheme is shown.
pub fn redacted(url: &str) -> String {
    let shown = url.split(['?', '#']).next().unwrap_or(url);
    if url.contains('@') && !shown.contains('@') {
        return shown.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://"));
    }
    match (shown.split_once("://"), shown.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        (None, Some((_, place))) => place.to_owned(),
        _ => shown.to_owned(),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
        out.push(high * 16 + low);
    }
    String::from_utf8(out).ok().filter(|s| !s.contains(char::is_control))
}

#[cfg(test)]
mod tests;
