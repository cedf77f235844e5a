# What the scaler is told, which is a step of the sweeper (functions/sweep/src/scale.rs): the services as pools of machines.

locals {
  # List prices of Fargate, as in infra/prices.toml; arm64 is a fifth cheaper. A policy looks at what one costs beside the other.
  per_vcpu_hour = 0.04048 * (var.architecture == "arm64" ? 0.8 : 1)
  per_gb_hour   = 0.004445 * (var.architecture == "arm64" ? 0.8 : 1)
  full_price    = var.settings.cpu / 1024 * local.per_vcpu_hour + var.settings.memory_mb / 1024 * local.per_gb_hour
  prices = {
    spot      = coalesce(var.settings.spot_price, tonumber(format("%.6f", local.full_price / 2)))
    on-demand = coalesce(var.settings.on_demand_price, tonumber(format("%.6f", local.full_price)))
  }

  pools = [for lane, service in local.services : {
    service           = aws_ecs_service.this[lane].name
    lane              = lane
    slots             = coalesce(var.settings.slots, max(1, floor(var.settings.cpu / 1024)))
    price_per_hour    = local.prices[lane]
    boot_p95_s        = coalesce(var.settings.boot_s, service.ec2 ? 180 : 90)
    reclaims_per_hour = lane == "spot" ? var.settings.reclaims_per_hour : 0
    machines_max      = service.max
  }]
}
