use super::*;

fn directory_of(url: &str) -> PathBuf {
    match parse(url).unwrap() {
        Location::Directory(path) => path,
        Location::Cloud(cloud) => panic!("{}", cloud.describe()),
    }
}

fn cloud(url: &str) -> CloudLocation {
    match parse(url).unwrap() {
        Location::Cloud(cloud) => cloud,
        Location::Directory(path) => panic!("{}", path.display()),
    }
}

#[test]
fn directories_in_every_form_become_absolute_paths() {
    for url in ["/var/backups/db", "file:/var/backups/db", "file:///var/backups/db", "file:/var//backups/./db/"] {
        assert_eq!(directory_of(url), PathBuf::from("/var/backups/db"), "{url}");
    }
    let here = std::env::current_dir().unwrap();
    for url in ["./db", "file:db", "file:./db"] {
        assert_eq!(directory_of(url), here.join("db"), "{url}");
    }
    assert_eq!(directory_of("/with?question#mark"), PathBuf::from("/with?question#mark"));
    assert_eq!(parse("file:/a/b").unwrap().to_string(), "file:/a/b");
}

#[test]
fn a_cloud_url_has_place_prefix_and_decoded_options() {
    let s3 = cloud("s3://bucket-1/some/prefix/?region=eu-west-1&endpoint=http%3A%2F%2F127.0.0.1:9000");
    assert_eq!((s3.place.as_str(), s3.prefix.as_str()), ("bucket-1", "some/prefix"));
    assert_eq!(s3.options.get("endpoint").map(String::as_str), Some("http://127.0.0.1:9000"));
    assert_eq!(s3.options.get("region").map(String::as_str), Some("eu-west-1"));
    assert_eq!(s3.describe(), "s3://bucket-1/some/prefix");
    assert_eq!(cloud("gcs://b").describe(), "gs://b");
    assert_eq!(cloud("gs://b/").service.driver, "gcs");
    assert_eq!(cloud("azblob://c/p?account_name=acc").service.place.setting(), "container");
}

#[test]
fn a_server_has_its_user_and_port_in_front_of_a_directory() {
    for (url, place, prefix) in [
        ("sftp://backup@host.example:2222/srv/archive/", "backup@host.example:2222", "srv/archive"),
        ("sftp://host/a", "host", "a"),
        ("hdfs://nn1:8020,nn2:8020/archives/orders", "nn1:8020,nn2:8020", "archives/orders"),
        ("webhdfs://gateway:9870/a?user_name=backup&tls=true", "gateway:9870", "a"),
    ] {
        let found = cloud(url);
        assert_eq!((found.place.as_str(), found.prefix.as_str()), (place, prefix), "{url}");
    }
    assert_eq!(cloud("sftp://backup@h:22/a/b").describe(), "sftp://backup@h:22/a/b");
    for (url, hint) in [
        ("sftp://host", "name a directory: sftp://host/path"),
        ("hdfs://nn:8020/", "name a directory"),
        ("hdfs:///a", "write hdfs://host:port/path"),
        ("sftp://host:port/a", "write sftp://host:port/path"),
        ("sftp://u:hunter2@host/a", "SSH key"),
        ("sftp://host/a?password=hunter2", "SSH key"),
        ("webhdfs://host/a?delegation=hunter2", "PITR_WEBHDFS_DELEGATION"),
        ("ssh://host/a", "did you mean sftp:"),
        ("hdfs://nn/a?user=x", "options of hdfs"),
    ] {
        let error = parse(url).unwrap_err();
        assert!(error.hint_text().contains(hint), "{url}: {}", error.hint_text());
        assert!(!format!("{error} {}", error.hint_text()).contains("hunter2"), "{error}");
    }
}

#[test]
fn a_misspelt_scheme_or_option_names_the_nearest_and_lists_all() {
    let cases = [
        ("s4://b", Code::StoreUrl, "did you mean s3:"),
        ("s3a://b", Code::StoreUrl, "did you mean s3:"),
        ("S3://b", Code::StoreUrl, "did you mean s3:"),
        ("azure://b", Code::StoreUrl, "did you mean azblob:"),
        ("flie:/x", Code::StoreUrl, "did you mean file:"),
        ("ftp://b", Code::StoreUrl, "known schemes: file:, s3://, azblob://, gs://"),
        ("s3://b?regoin=x", Code::StoreOption, "did you mean region? options of s3: region, endpoint, profile"),
        ("s3://b?colour=x", Code::StoreOption, "options of s3: region"),
        ("gs://b?region=x", Code::StoreOption, "options of gs: endpoint"),
        ("file:/x?region=1", Code::StoreOption, "file: has no options"),
    ];
    for (url, code, hint) in cases {
        let error = parse(url).unwrap_err();
        assert_eq!(error.code(), code, "{url}: {error}");
        assert!(error.hint_text().contains(hint), "{url}: {}", error.hint_text());
    }
}

#[test]
fn secrets_in_a_url_are_refused_not_repeated_and_the_place_for_them_is_named() {
    let cases = [
        ("s3://key:hunter2@bucket/p", "AWS_ACCESS_KEY_ID"),
        ("s3://b?secret_access_key=hunter2", "AWS_SECRET_ACCESS_KEY"),
        ("s3://b?Secret_Access_Key=hunter2", "AWS_SECRET_ACCESS_KEY"),
        ("azblob://c?account_key=hunter2", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("azblob://c/p?sv=2022&sig=hunter2", "AZURE_STORAGE_SAS_TOKEN"),
        ("gs://b?token=hunter2", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("s3://b?endpoint=http://u:hunter2@h", "credentials"),
        ("s4://u:hunter2@b/p?x=hunter2", "s3"),
        ("s3://u:hunter2?x@b/p", "server"),
        ("s4://u:hunter2#x@b/p", "s3"),
    ];
    for (url, instead) in cases {
        let error = parse(url).unwrap_err();
        assert_eq!(error.code(), Code::StoreUrl, "{url}");
        assert!(error.hint_text().contains(instead), "{url}: {}", error.hint_text());
        assert!(!format!("{error} {}", error.hint_text()).contains("hunter2"), "{error}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let bad = [
        "",
        "backups/db",
        "file:",
        "file://host/x",
        "s3:bucket",
        "s3://",
        "s3:///p",
        "s3://b:9000/p",
        "s3://b/../x",
        "s3://b/a//b",
        "s3://b/p#x",
        "s3://b?region",
        "s3://b?region=",
        "s3://b?region=%zz",
        "s3://b?region=a&region=b",
        "s3://b ü/x",
    ];
    for url in bad {
        assert!(parse(url).is_err(), "{url}");
    }
}
