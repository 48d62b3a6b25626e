//! The promises over real protocols, the credentials people have, and what failures are called.

use std::sync::Arc;

use bytes::Bytes;
use pitr_archive::{
    code::Code,
    store::{
        Put, Store,
        environment::Environment,
        url::{OpenOptions, open},
    },
};

use crate::{
    lossy_proxy::LossyProxy,
    services::{self, AZURE_ACCOUNT, AZURE_KEY, AZURE_SAS, ObjectStore},
    suite::{self, key, pattern},
};

fn options(variables: &[(&str, &str)]) -> OpenOptions {
    OpenOptions { environment: variables.iter().copied().collect(), ..OpenOptions::of_process() }
}

async fn open_in(service: &ObjectStore, bucket: &str, prefix: &str) -> Arc<dyn Store> {
    let variables = service.variables();
    open(&service.url(bucket, prefix), &options(&variables)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_every_promise() {
    let Some(s3) = services::s3() else { return };
    s3.create("bucket1");
    suite::all(open_in(&s3, "bucket1", "some/prefix").await).await;
    // The same bucket without a prefix sees the other archive's objects below it, and the names are ours.
    let whole = open_in(&s3, "bucket1", "").await;
    assert_eq!(whole.describe(), "s3://bucket1");
    assert!(whole.list("some/prefix/", None).await.unwrap().len() > 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_every_promise() {
    let Some(azure) = services::azure() else { return };
    azure.create("container1");
    suite::all(open_in(&azure, "container1", "prefix").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_azure_credentials_works_and_none_of_them_is_needed_in_the_url() {
    let Some(azure) = services::azure() else { return };
    azure.create("container1");
    let endpoint = azure.endpoint();
    let with_key = format!(
        "DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={endpoint};"
    );
    let with_token = format!("BlobEndpoint={endpoint}/;SharedAccessSignature={AZURE_SAS}");
    let plain = "azblob://container1/p".to_owned();
    let at_endpoint = format!("azblob://container1/p?endpoint={endpoint}");
    let token = format!("?{AZURE_SAS}");
    type Variables<'a> = Vec<(&'a str, &'a str)>;
    let cases: [(&str, &String, Variables); 5] = [
        ("key", &at_endpoint, vec![("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT), ("AZURE_STORAGE_KEY", AZURE_KEY)]),
        ("token", &at_endpoint, vec![("AZURE_STORAGE_SAS_TOKEN", AZURE_SAS)]),
        ("token-with-mark", &at_endpoint, vec![("AZURE_STORAGE_SAS_TOKEN", &token)]),
        ("string-with-key", &plain, vec![("AZURE_STORAGE_CONNECTION_STRING", &with_key)]),
        ("string-with-token", &plain, vec![("AZURE_STORAGE_CONNECTION_STRING", &with_token)]),
    ];
    for (name, url, variables) in cases {
        let store = open(url, &options(&variables)).await.unwrap();
        let k = key(&format!("tags/{name}.doc"));
        assert_eq!(store.put(&k, Bytes::from_static(b"x")).await.unwrap(), Put::Created, "{name}");
        assert_eq!(store.get(&k, 1).await.unwrap(), Some(Bytes::from_static(b"x")), "{name}");
        let listed = store.list("tags/", None).await.unwrap();
        assert!(listed.iter().any(|l| l.key == k), "{name}: {listed:?}");
        store.delete(&k).await.unwrap();
    }
    let wrong = [("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT), ("AZURE_STORAGE_KEY", "d3Jvbmc=")];
    let error = open(&at_endpoint, &options(&wrong)).await.unwrap().list("", None).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreDenied, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_never_an_empty_archive() {
    for (service, place) in [(services::s3(), "s3"), (services::azure(), "azblob")] {
        let Some(service) = service else { continue };
        let store = open_in(&service, "no-such-bucket", "p").await;
        assert!(store.describe().starts_with(place));
        let k = key("archive.json");
        let errors = [
            store.get(&k, 10).await.map(drop).unwrap_err(),
            store.size(&k).await.map(drop).unwrap_err(),
            store.get_range(&k, 0..1).await.map(drop).unwrap_err(),
            store.list("", None).await.map(drop).unwrap_err(),
            store.put(&k, Bytes::from_static(b"x")).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), Code::StoreNotFound, "{error}");
        }
        let mut upload = store.upload(&k, 0).await.unwrap();
        let error = match upload.write(pattern(20 << 20)).await {
            Err(error) => error,
            Ok(()) => upload.finish().await.unwrap_err(),
        };
        assert_eq!(error.code(), Code::StoreNotFound, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_unavailable_and_no_secret_is_told() {
    let Some(mut s3) = services::s3() else { return };
    s3.create("bucket1");
    let store = open_in(&s3, "bucket1", "p").await;
    assert_eq!(store.put(&key("a/b"), Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    s3.stop();
    let error = store.get(&key("a/b"), 10).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreUnavailable, "{error}");
    assert!(!format!("{error:?} {store:?}").contains("testtest"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_settings_come_from_environment_profile_and_shared_files() {
    let Some(s3) = services::s3() else { return };
    s3.create("bucket1");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    std::fs::write(&config, format!("[profile backup]\nregion = eu-central-1\nendpoint_url = {}\n", s3.endpoint()))
        .unwrap();
    let variables = [
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_PROFILE", "backup"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "testtest"),
    ];
    let store = open("s3://bucket1/p", &options(&variables)).await.unwrap();
    assert_eq!(store.put(&key("a/b"), Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    // Without a region anywhere the bucket itself is asked.
    let url = format!("s3://bucket1/p?endpoint={}", s3.endpoint());
    let keys =
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "testtest"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let store = open(&url, &options(&keys)).await.unwrap();
    assert_eq!(store.get(&key("a/b"), 10).await.unwrap(), Some(Bytes::from_static(b"x")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_credentials_the_request_is_denied_and_the_hint_says_where_they_are_looked_for() {
    let nothing: Environment =
        [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_CONFIG_FILE", "/dev/null")].into_iter().collect();
    let options = OpenOptions { environment: nothing, ..OpenOptions::of_process() };
    for service in [services::s3(), services::azure()].into_iter().flatten() {
        service.create("bucket1");
        let store = open(&service.url("bucket1", "p"), &options).await.unwrap();
        let error = store.list("", None).await.unwrap_err();
        assert_eq!(error.code(), Code::StoreDenied, "{error}");
        assert!(error.hint_text().contains("credentials"), "{}", error.hint_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_reply_a_writer_meets_its_own_object_and_nothing_else_notices() {
    let Some(s3) = services::s3() else { return };
    s3.create("bucket1");
    let proxy = LossyProxy::start(s3.address());
    let url = format!("s3://bucket1/p?region=us-east-1&endpoint={}", proxy.endpoint());
    let store = open(&url, &options(&s3.variables())).await.unwrap();
    let small = key("segments/1/a.seg");
    proxy.lose("PUT ", 1);
    assert_eq!(
        store.put(&small, Bytes::from_static(b"mine")).await.unwrap(),
        Put::Exists,
        "which is why bodies carry nonces"
    );
    assert_eq!(store.get(&small, 10).await.unwrap(), Some(Bytes::from_static(b"mine")));
    for (request, count) in [("GET ", 2), ("HEAD ", 2), ("DELETE ", 1)] {
        let before = proxy.lost();
        proxy.lose(request, count);
        assert_eq!(store.get(&small, 10).await.unwrap(), Some(Bytes::from_static(b"mine")));
        assert_eq!(store.get_range(&small, 1..3).await.unwrap(), Some(Bytes::from_static(b"in")));
        assert_eq!(store.size(&small).await.unwrap(), Some(4));
        assert_eq!(store.list("", None).await.unwrap().len(), 1);
        store.delete(&key("segments/1/absent.seg")).await.unwrap();
        assert_eq!(proxy.lost() - before, count, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_the_loss_of_any_reply() {
    let Some(s3) = services::s3() else { return };
    s3.create("bucket1");
    let proxy = LossyProxy::start(s3.address());
    let url = format!("s3://bucket1/p?region=us-east-1&endpoint={}", proxy.endpoint());
    let store = open(&url, &options(&s3.variables())).await.unwrap();
    let body = pattern(20 << 20);
    // The start, a part, and the completion, whose second attempt may find its own object.
    for (i, request) in ["uploads", "partNumber=2", "POST "].into_iter().enumerate() {
        let large = key(&format!("files/{i}.dat"));
        let mut upload = store.upload(&large, 20 << 20).await.unwrap();
        if request != "POST " {
            proxy.lose(request, 1);
        }
        upload.write(body.slice(..15 << 20)).await.unwrap();
        upload.write(body.slice(15 << 20..)).await.unwrap();
        if request == "POST " {
            proxy.lose(request, 1);
        }
        let put = upload.finish().await;
        assert!(matches!(put, Ok(Put::Created | Put::Exists)), "{request}: {put:?}");
        assert_eq!(proxy.lost(), u32::try_from(i).unwrap() + 1, "{request}");
        assert!(store.get(&large, 30 << 20).await.unwrap().unwrap() == body, "{request}");
    }
}

const CHILD_URL: &str = "PITR_TEST_STORE_URL";

/// Run by [`profiles_and_shared_credential_files_work`] as a process of its own, because the signer reads the process's
/// environment.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_uses_its_environment() {
    let Ok(url) = std::env::var(CHILD_URL) else { return };
    let store = open(&url, &OpenOptions::of_process()).await.unwrap();
    store.list("", None).await.unwrap();
    let _ = store.put(&key("a/b"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.get(&key("a/b"), 10).await.unwrap(), Some(Bytes::from_static(b"x")));
}

#[test]
fn profiles_and_shared_credential_files_work() {
    let Some(s3) = services::s3() else { return };
    s3.create("bucket1");
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join(".aws");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("config"), "[default]\nregion = us-east-1\n[profile backup]\nregion = us-east-1\n")
        .unwrap();
    let keys = "aws_access_key_id = test\naws_secret_access_key = testtest\n";
    std::fs::write(home.join("credentials"), format!("[backup]\n{keys}")).unwrap();
    let url = format!("s3://bucket1/p?endpoint={}", s3.endpoint());
    let run = |url: &str, variables: &[(&str, &str)]| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cloud::child_that_uses_its_environment", "--nocapture"])
            .env_clear()
            .env("HOME", dir.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env(CHILD_URL, url)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (url, variables) in [
        (format!("{url}&profile=backup"), vec![]),
        (url.clone(), vec![("AWS_PROFILE", "backup")]),
        (url.clone(), vec![("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "testtest")]),
    ] {
        let (ok, said) = run(&url, &variables);
        assert!(ok, "{url} {variables:?}: {said}");
    }
    // The default profile has no keys: the same call without a profile is refused, so the profile was what worked.
    let (ok, said) = run(&url, &[]);
    assert!(!ok && said.contains("store.denied"), "{said}");
}
