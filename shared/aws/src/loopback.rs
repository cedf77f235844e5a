//! For tests, behind the feature `loopback`: an AWS to call on this machine, and the things a grid needs in it. Being here, it
//! keeps the tests of the Lambdas, the container and the client from naming the SDK.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;

use crate::{AwsPorts, Settings, schema};

/// The secret of every account: presigned URLs are checked.
const SECRET: &str = "test";

/// Says loudly that a test cannot run here; it then counts as skipped.
pub fn skipped(reason: &str) {
    use std::io::Write;
    // Past the capture of test output, and in one piece: other tests write there too.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes());
}

/// Where things of a run are, whatever the server.
pub fn settings(run: &str) -> Settings {
    Settings { table: format!("{run}-table"), bucket: format!("{run}-bucket"), queues: run.to_owned() }
}

/// A configuration for a server on loopback. Each account is an AWS of its own.
pub async fn config(endpoint: &str, account: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(account, SECRET, None, None, "test"))
        .endpoint_url(endpoint)
        .load()
        .await
}

/// A name that no other test has, made of 12 digits.
pub fn account() -> String {
    format!("{:012}", 100_000_000_000 + rand::random::<u64>() % 900_000_000_000)
}

/// Ports in an account of their own, with table, bucket and queues; or why there can be none.
pub async fn fresh() -> Result<AwsPorts, &'static str> {
    let (config, settings) = fresh_account().await?;
    Ok(ports(&config, &settings).await)
}

/// An account of its own, in which there is nothing yet, and where a grid's things would be in it; or why there can be none.
pub async fn fresh_account() -> Result<(SdkConfig, Settings), &'static str> {
    let (endpoint, account) = (aws_on_loopback()?, account());
    Ok((config(endpoint, &account).await, settings(&format!("s{account}"))))
}

/// The variables that make a program of this workspace use the things of `settings` in an account on loopback.
pub fn environment(endpoint: &str, account: &str, settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", account.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("SHEAF_TABLE", settings.table.clone()),
        ("SHEAF_BUCKET", settings.bucket.clone()),
        ("SHEAF_QUEUES", settings.queues.clone()),
    ]
}

/// Makes table, bucket and queues, and waits until they can be used.
///
/// # Panics
/// When they cannot be made.
pub async fn ports(config: &SdkConfig, settings: &Settings) -> AwsPorts {
    schema::create_table(config, &settings.table).await.expect("a table");
    schema::create_queues(config, &settings.queues).await.expect("queues");
    let path_style = config.endpoint_url().is_some();
    let s3 = aws_sdk_s3::Config::from(config).to_builder().force_path_style(path_style).build();
    let bucket = aws_sdk_s3::Client::from_conf(s3).create_bucket().bucket(&settings.bucket);
    let region = config.region().map(|region| region.as_ref().to_owned()).filter(|region| region != "us-east-1");
    let place = region.map(|region| {
        let place = aws_sdk_s3::types::BucketLocationConstraint::from(region.as_str());
        aws_sdk_s3::types::CreateBucketConfiguration::builder().location_constraint(place).build()
    });
    bucket.set_create_bucket_configuration(place).send().await.expect("a bucket");
    wait_for_table(config, &settings.table).await;
    AwsPorts::over(config, settings)
}

/// Waits until a table is active.
///
/// # Panics
/// When it does not become so.
pub async fn wait_for_table(config: &SdkConfig, table: &str) {
    let client = aws_sdk_dynamodb::Client::new(config);
    for _ in 0..600 {
        let found = client.describe_table().table_name(table).send().await.expect("a description");
        let status = found.table().and_then(|table| table.table_status());
        if status == Some(&aws_sdk_dynamodb::types::TableStatus::Active) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the table did not become active");
}

/// Makes a cluster with a service that shall have no container, and that could not start any.
///
/// # Panics
/// When they cannot be made.
pub async fn create_service(config: &SdkConfig, cluster: &str, name: &str) {
    let client = aws_sdk_ecs::Client::new(config);
    client.create_cluster().cluster_name(cluster).send().await.expect("a cluster");
    let container =
        aws_sdk_ecs::types::ContainerDefinition::builder().name("worker").image("registry.example.com/worker");
    let task = client.register_task_definition().family(name).container_definitions(container.build());
    task.send().await.expect("a task definition");
    let service = client.create_service().cluster(cluster).service_name(name).task_definition(name).desired_count(0);
    service.send().await.expect("a service");
}

/// Spoils what is stored of a chunk.
///
/// # Panics
/// When it cannot be written.
pub async fn damage_chunk(config: &SdkConfig, table: &str, chunk: sheaf_core::ChunkKey) {
    let (pk, sk) = schema::chunk_key(chunk);
    let damage = aws_sdk_dynamodb::Client::new(config).update_item().table_name(table);
    let damage = damage.set_key(Some(crate::state::item::key(pk, sk))).update_expression("SET #spec = :nonsense");
    let damage = damage.expression_attribute_names("#spec", schema::chunk::SPEC);
    let nonsense = crate::state::item::binary(vec![u8::MAX; 3]);
    damage.expression_attribute_values(":nonsense", nonsense).send().await.expect("written");
}

/// Where the set-up has put the program.
fn ministack() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two folders down");
    let program = root.join("target/aws-venv/bin/ministack");
    std::env::var_os("SHEAF_TEST_MINISTACK").map(PathBuf::from).or_else(|| program.is_file().then_some(program))
}

struct Server {
    endpoint: String,
    _shell: Child,
}

/// The endpoint of one ministack for this process, or why there is none.
pub fn aws_on_loopback() -> Result<&'static str, &'static str> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let program = ministack().ok_or("ministack is not installed: cargo xtask setup")?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(text)?.port();
        // Ends it when this process is gone, however it ends: then nobody holds the pipe that the shell reads.
        let script = r#""$0" >/dev/null 2>&1 </dev/null & server=$!; cat >/dev/null; kill "$server""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(program).stdin(Stdio::piped());
        let shell = shell.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string()).spawn().map_err(text)?;
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                return Err("ministack does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Server { endpoint: format!("http://127.0.0.1:{port}"), _shell: shell })
    });
    server.as_ref().map(|server| server.endpoint.as_str()).map_err(String::as_str)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
