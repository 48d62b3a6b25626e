//! The object stores that a URL can name.
//!
//! Owns: one entry per service ([`SERVICES`]): its schemes, what the URL's host means, which options it takes, which
//! of them are secrets, and how its settings come from the environment. **Adding a service is one entry here and its
//! Cargo feature of opendal.** Refuses: I/O, and passing on an option that is not listed, because the driver ignores
//! what it does not know.

use std::collections::BTreeMap;

use super::{account, environment::Environment};
use crate::error::Result;

/// Settings by the driver's names. They can hold secrets: never printed.
pub(super) type Settings = BTreeMap<String, String>;

/// What stands at the URL's host.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The name of a bucket or container: letters, digits, '.', '-', '_'. Without a prefix it is all of it.
    Named(&'static str),
    /// A server, `[user@]host[:port]`, for the driver's setting of that name. Several, separated by commas, where a
    /// standby takes over. The prefix is a directory there and never empty.
    Server(
        #[cfg_attr(
            not(any(feature = "cloud", test)),
            expect(dead_code, reason = "URLs are checked also where they cannot be opened")
        )]
        &'static str,
    ),
}

impl Place {
    /// The driver's setting.
    #[cfg(any(feature = "cloud", test))]
    pub(super) const fn setting(self) -> &'static str {
        match self {
            Self::Named(setting) | Self::Server(setting) => setting,
        }
    }

    /// What people call it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Named(setting) => setting,
            Self::Server(_) => "server",
        }
    }
}

/// How the service creates an object exclusively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Creation {
    /// It refuses to create what is there, and shows objects whole.
    Conditional,
    /// A file is finished under a temporary name, and gets its own in one step that fails when the name is taken.
    Named,
}

/// One service.
pub(super) struct Service {
    /// What the URL begins with; the first is the one we print.
    pub schemes: &'static [&'static str],
    /// The driver's name for it.
    pub driver: &'static str,
    /// What the URL's host is; the path is always `root`.
    pub place: Place,
    /// How objects come to be there.
    #[cfg_attr(
        not(feature = "cloud"),
        expect(dead_code, reason = "URLs are checked also where they cannot be opened")
    )]
    pub creation: Creation,
    /// Cargo's feature for it, and whether this program was built with it.
    pub feature: (&'static str, bool),
    /// The options that a URL may carry.
    pub options: &'static [&'static str],
    /// Options that a URL must not carry, and what to use instead.
    pub secrets: &'static [(&'static str, &'static str)],
    /// Adds what the environment says and the URL does not.
    #[cfg_attr(
        not(feature = "cloud"),
        expect(dead_code, reason = "URLs are checked also where they cannot be opened")
    )]
    pub complete: fn(&Environment, &mut Settings) -> Result<()>,
}

const AWS_KEYS: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a profile (?profile=NAME)";
const AZURE_SAS: &str = "AZURE_STORAGE_SAS_TOKEN in the environment";
const SSH_KEY: &str = "an SSH key (?key=/path/of/the/key, or what ~/.ssh/config says)";
const OWN_ENCRYPTION: &str = "pitr's own encryption (--key-file)";

const CLOUD: (&str, bool) = ("cloud", cfg!(feature = "cloud"));

/// Every service, in the order in which they are listed to people.
pub(super) const SERVICES: &[Service] = &[
    Service {
        schemes: &["s3"],
        driver: "s3",
        place: Place::Named("bucket"),
        creation: Creation::Conditional,
        feature: CLOUD,
        options: &[
            "region",
            "endpoint",
            "profile",
            "role_arn",
            "external_id",
            "role_session_name",
            "enable_virtual_host_style",
            "default_storage_class",
            "default_acl",
            "server_side_encryption",
            "server_side_encryption_aws_kms_key_id",
            "checksum_algorithm",
            "disable_ec2_metadata",
            "enable_request_payer",
            "skip_signature",
        ],
        secrets: &[
            ("access_key_id", AWS_KEYS),
            ("secret_access_key", AWS_KEYS),
            ("session_token", "AWS_SESSION_TOKEN in the environment"),
            ("server_side_encryption_customer_key", OWN_ENCRYPTION),
        ],
        complete: account::aws,
    },
    Service {
        schemes: &["azblob"],
        driver: "azblob",
        place: Place::Named("container"),
        creation: Creation::Conditional,
        feature: CLOUD,
        options: &["endpoint", "account_name", "skip_signature"],
        secrets: &[
            ("account_key", "AZURE_STORAGE_ACCOUNT_KEY in the environment"),
            ("sas_token", AZURE_SAS),
            // The fields of a SAS URL, as people copy it from the portal.
            ("sig", AZURE_SAS),
            ("sv", AZURE_SAS),
            ("se", AZURE_SAS),
            ("sp", AZURE_SAS),
            ("connection_string", "AZURE_STORAGE_CONNECTION_STRING in the environment"),
            ("encryption_key", OWN_ENCRYPTION),
        ],
        complete: account::azure,
    },
    Service {
        schemes: &["gs", "gcs"],
        driver: "gcs",
        place: Place::Named("bucket"),
        creation: Creation::Conditional,
        feature: CLOUD,
        options: &[
            "endpoint",
            "service_account",
            "credential_path",
            "default_storage_class",
            "predefined_acl",
            "disable_vm_metadata",
            "skip_signature",
        ],
        secrets: &[
            ("credential", "GOOGLE_APPLICATION_CREDENTIALS, which names a file"),
            ("token", "GOOGLE_APPLICATION_CREDENTIALS, which names a file"),
        ],
        complete: account::google,
    },
    Service {
        schemes: &["hdfs"],
        driver: "hdfs-native",
        place: Place::Server("name_node"),
        creation: Creation::Named,
        feature: ("hdfs", cfg!(feature = "hdfs")),
        options: &[],
        secrets: &[],
        complete: account::hdfs,
    },
    Service {
        schemes: &["webhdfs"],
        driver: "webhdfs",
        place: Place::Server("endpoint"),
        creation: Creation::Named,
        feature: ("webhdfs", cfg!(feature = "webhdfs")),
        options: &["user_name", "tls"],
        secrets: &[("delegation", "PITR_WEBHDFS_DELEGATION in the environment")],
        complete: account::webhdfs,
    },
    Service {
        schemes: &["sftp"],
        driver: "sftp",
        place: Place::Server("endpoint"),
        creation: Creation::Named,
        feature: ("sftp", cfg!(feature = "sftp")),
        options: &["user", "key", "known_hosts_strategy"],
        secrets: &[("password", SSH_KEY), ("passphrase", "an SSH agent")],
        complete: account::sftp,
    },
];

/// What people know some services by.
pub(super) const OTHER_NAMES: &[(&str, &str)] = &[
    ("s3a", "s3"),
    ("s3n", "s3"),
    ("aws", "s3"),
    ("az", "azblob"),
    ("azure", "azblob"),
    ("abfs", "azblob"),
    ("abfss", "azblob"),
    ("wasb", "azblob"),
    ("wasbs", "azblob"),
    ("google", "gs"),
    ("ssh", "sftp"),
    ("scp", "sftp"),
    ("hdfs-native", "hdfs"),
    ("viewfs", "hdfs"),
    ("swebhdfs", "webhdfs"),
];

impl Service {
    /// The name in URLs that we print.
    pub(super) fn scheme(&self) -> &'static str {
        self.schemes.first().copied().unwrap_or(self.driver)
    }

    /// The service that `scheme` names.
    pub(super) fn of_scheme(scheme: &str) -> Option<&'static Self> {
        SERVICES.iter().find(|s| s.schemes.contains(&scheme))
    }
}

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|c| (distance(word, c), c))
        .filter(|(d, c)| *d <= allowed || (word.len() >= 3 && (c.contains(word) || word.contains(c))))
        .min()
        .map(|(_, c)| c)
}

/// Edits (insert, delete, replace, swap neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], i: usize| row.get(i).copied().unwrap_or(usize::MAX / 2);
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    at(&last, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_what_was_meant_and_nothing_is_guessed_from_afar() {
        let s3 = SERVICES[0].options;
        let cases = [
            ("regoin", Some("region")),
            ("end_point", Some("endpoint")),
            ("storage_class", Some("default_storage_class")),
            ("Region", Some("region")),
            ("colour", None),
        ];
        for (word, meant) in cases {
            assert_eq!(nearest(word, s3.iter().copied()), meant, "{word}");
        }
    }

    #[test]
    fn no_scheme_is_used_twice_and_no_option_is_also_a_secret() {
        let mut schemes: Vec<_> = SERVICES.iter().flat_map(|s| s.schemes).collect();
        let count = schemes.len();
        schemes.sort_unstable();
        schemes.dedup();
        assert_eq!(schemes.len(), count);
        for service in SERVICES {
            assert!(service.secrets.iter().all(|(name, _)| !service.options.contains(name)), "{}", service.driver);
        }
        assert!(OTHER_NAMES.iter().all(|(_, ours)| Service::of_scheme(ours).is_some()));
    }
}
