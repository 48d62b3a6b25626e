//! HDFS: giving a finished file its name.
//!
//! Owns: `rename2` without overwriting, which the `NameNode` does in one transaction: of several writers one wins, and
//! nobody sees half a file. The driver's own rename deletes the target first; so the client library is used directly.
//! What HDFS does not do: a closed file is in the memory of its `DataNode`s (as many as its replication says), and on
//! their disks only when the cluster sets `dfs.datanode.synconclose`.

use async_trait::async_trait;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use opendal::{Error, ErrorKind, Operator, services};

use super::naming::Naming;
use crate::{object_key::ObjectKey, store::Put};

/// A name for the group of `NameNode`s that is only used inside the client.
const GROUP: &str = "pitr";

/// How often and for how long the client goes on asking other `NameNode`s before it answers. Its own measure is minutes:
/// callers know better whether to wait.
const PATIENCE: [(&str, &str); 2] =
    [("dfs.client.failover.max.attempts", "4"), ("dfs.client.failover.sleep.max.millis", "2000")];

/// The driver, for everything but naming.
pub(super) fn operator(name_node: &str, root: &str) -> opendal::Result<Operator> {
    let options = PATIENCE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Operator::new(services::HdfsNative::default().name_node(name_node).root(root).options(options))
}

/// The `NameNode`s' side of creation.
pub(super) struct HdfsNaming {
    client: Client,
    /// With `/` at both ends.
    root: String,
}

impl HdfsNaming {
    /// `name_node` is `hdfs://host:port[,host:port]`.
    pub(super) fn new(name_node: &str, root: &str) -> opendal::Result<Self> {
        let hosts: Vec<_> = name_node.trim_start_matches("hdfs://").split(',').collect();
        let addresses = hosts
            .iter()
            .enumerate()
            .map(|(i, host)| (format!("dfs.namenode.rpc-address.{GROUP}.nn{i}"), (*host).to_owned()));
        let names: Vec<_> = (0..hosts.len()).map(|i| format!("nn{i}")).collect();
        let patience = PATIENCE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = addresses.chain([(format!("dfs.ha.namenodes.{GROUP}"), names.join(","))]).chain(patience);
        let client = ClientBuilder::new().with_url(format!("hdfs://{GROUP}")).with_config(config).build();
        Ok(Self { client: client.map_err(|e| error(&e))?, root: format!("{}/", root.trim_end_matches('/')) })
    }
}

#[async_trait]
impl Naming for HdfsNaming {
    async fn name(&self, temporary: &str, key: &ObjectKey) -> opendal::Result<Put> {
        let (from, to) = (format!("{}{temporary}", self.root), format!("{}{key}", self.root));
        let mut result = self.client.rename(&from, &to, false).await;
        if result.as_ref().is_err_and(is_absent) {
            // Mostly the object's directory is new. After a lost reply it is the temporary file that is gone: then
            // the object is there, and mine or not, the name is taken.
            let directory = to.rsplit_once('/').map_or("/", |(directory, _)| directory);
            self.client.mkdirs(directory, 0o755, true).await.map_err(|e| error(&e))?;
            result = self.client.rename(&from, &to, false).await;
        }
        match result {
            Ok(()) => Ok(Put::Created),
            Err(e) if is_taken(&e) => Ok(Put::Exists),
            Err(e) if is_absent(&e) => match self.client.get_file_info(&to).await {
                Ok(_) => Ok(Put::Exists),
                Err(_) => Err(error(&e)),
            },
            Err(e) => Err(error(&e)),
        }
    }
}

fn is_absent(e: &HdfsError) -> bool {
    matches!(e, HdfsError::FileNotFound(_)) || thrown(e, "FileNotFoundException")
}

fn is_taken(e: &HdfsError) -> bool {
    matches!(e, HdfsError::AlreadyExists(_)) || thrown(e, "FileAlreadyExistsException")
}

fn thrown(e: &HdfsError, class: &str) -> bool {
    matches!(e, HdfsError::RPCError(thrown, _) | HdfsError::FatalRPCError(thrown, _) if thrown.ends_with(class))
}

fn error(e: &HdfsError) -> Error {
    let kind = if thrown(e, "AccessControlException") { ErrorKind::PermissionDenied } else { ErrorKind::Unexpected };
    Error::new(kind, e.to_string())
}
