//! The services of ECS, on a server that knows them by name.

use sheaf_aws::{
    EndCause, Services,
    loopback::{create_service, fresh_account, skipped},
};
use sheaf_protocol::StoreError;

#[tokio::test]
async fn services_are_described_in_order_and_scaled() {
    let (config, _) = match fresh_account().await {
        Ok(fresh) => fresh,
        Err(reason) => return skipped(reason),
    };
    let names = ["night-spot", "night-on-demand"].map(str::to_owned);
    for name in &names {
        create_service(&config, "night", name).await;
    }
    let services = Services::over(&config, "night");
    let desired = async || {
        let found = services.describe(&names).await.expect("described");
        found.into_iter().map(|service| (service.name, service.desired)).collect::<Vec<_>>()
    };
    let [spot, on_demand] = names.clone();
    assert_eq!(desired().await, [(spot.clone(), 0), (on_demand.clone(), 0)]);
    for _ in 0..2 {
        services.set_desired(&on_demand, 3).await.expect("set");
        assert_eq!(desired().await, [(spot.clone(), 0), (on_demand.clone(), 3)]);
    }
    // What has ended is told of as well, and why.
    let containers = async |name: &str| {
        let found = services.containers(name).await.expect("listed");
        found.into_iter().map(|container| (container.id, container.end.map(|end| end.cause))).collect::<Vec<_>>()
    };
    let run = containers(&on_demand).await;
    assert_eq!(run.iter().map(|(_, cause)| *cause).collect::<Vec<_>>(), [None; 3]);
    services.set_desired(&on_demand, 0).await.expect("set");
    let ended = run.into_iter().map(|(id, _)| (id, Some(EndCause::Other)));
    assert_eq!(containers(&on_demand).await, ended.collect::<Vec<_>>());
    assert_eq!(containers(&spot).await, [], "of another service");

    let missing = services.describe(&[spot, "night-gone".to_owned()]).await.expect_err("there is none");
    assert!(matches!(&missing, StoreError::Stopped { detail } if detail.contains("night-gone")), "{missing}");
    let missing = services.set_desired("night-gone", 1).await.expect_err("there is none");
    assert!(matches!(missing, StoreError::Stopped { .. }), "{missing}");
}
