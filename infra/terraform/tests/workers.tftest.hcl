# Plans of containers.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  grid     = "night"
  region   = "eu-west-1"
  packages = "./tests/packages"
  workers  = { image = "registry.example.com/sheaf-worker:1" }
}

run "fargate" {
  command = apply

  assert {
    condition     = output.cluster == "night" && toset(keys(module.workers[0].services)) == toset(["spot", "on-demand"])
    error_message = "There is a service per lane."
  }
  assert {
    condition     = alltrue([for service in module.workers[0].services : service.desired_count == 0])
    error_message = "Without work nothing runs."
  }
  assert {
    condition     = one(module.workers[0].services.spot.capacity_provider_strategy[*].capacity_provider) == "FARGATE_SPOT"
    error_message = "The spot lane runs on spot capacity only."
  }
  assert {
    condition     = module.workers[0].fleet == null
    error_message = "Fargate needs no fleet."
  }
  assert {
    condition = alltrue([for lane, task in module.workers[0].tasks : alltrue([for container in jsondecode(task.container_definitions) :
      container.readonlyRootFilesystem && !container.privileged && container.user != "0:0" && container.user != "root" && container.stopTimeout >= 90 &&
      jsonencode(container.linuxParameters.capabilities.drop) == jsonencode(["ALL"]) &&
      contains(container.environment, { name = "SHEAF_LANES", value = { spot = "spot", on-demand = "on-demand,spot" }[lane] })
    ])])
    error_message = "A container cannot write to its root, is not root, has time to drain, and knows its lanes: those on demand take both."
  }
  assert {
    condition     = module.functions.deployed.submit.environment[0].variables.SHEAF_SPOT == "1"
    error_message = "The Lambdas know that there are containers."
  }
  assert {
    condition = jsondecode(module.functions.deployed.submit.environment[0].variables.SHEAF_CONTAINERS) == {
      spot = { slots = 12, boot_ms = 90000 }, on-demand = { slots = 2, boot_ms = 90000 }
    }
    error_message = "Clients are told how many tasks containers run at once."
  }
}

run "scaler" {
  command = apply

  assert {
    condition = jsondecode(module.functions.deployed.sweep.environment[0].variables.SHEAF_CAPACITY) == {
      cluster = "night", policy = "sheaf", grace_s = 60, drain_s = 300
      pools = [
        { service = "night-on-demand", lane = "on-demand", slots = 1, price_per_hour = 0.039496, boot_p95_s = 90, reclaims_per_hour = 0, machines_max = 2 },
        { service = "night-spot", lane = "spot", slots = 1, price_per_hour = 0.019748, boot_p95_s = 90, reclaims_per_hour = 1, machines_max = 10 },
      ]
    }
    error_message = "The sweeper knows the services, what they cost and how many containers they may have."
  }
  assert {
    condition     = alltrue([for name, lambda in module.functions.deployed : name == "sweep" || !contains(keys(lambda.environment[0].variables), "SHEAF_CAPACITY")])
    error_message = "Nobody else is told."
  }
}

run "scaler_as_told" {
  command = apply
  variables {
    workers = {
      image  = "registry.example.com/sheaf-worker:1", spot_max = 1, on_demand_max = 0, capacity = "ec2", cpu = 2048, slots = 3
      policy = "grace-period", grace_s = 120, drain_s = 600, spot_price = 0.01, reclaims_per_hour = 0.1
    }
  }

  assert {
    condition = jsondecode(module.functions.deployed.sweep.environment[0].variables.SHEAF_CAPACITY) == {
      cluster = "night", policy = "grace-period", grace_s = 120, drain_s = 600
      pools   = [{ service = "night-spot", lane = "spot", slots = 3, price_per_hour = 0.01, boot_p95_s = 180, reclaims_per_hour = 0.1, machines_max = 1 }]
    }
    error_message = "What is set counts."
  }
  assert {
    condition     = keys(module.workers[0].services) == ["spot"]
    error_message = "A lane that may have no container has no service."
  }
}

run "by_hand" {
  command = apply
  variables {
    workers = { image = "registry.example.com/sheaf-worker:1", scaling = false }
  }

  assert {
    condition     = !contains(keys(module.functions.deployed.sweep.environment[0].variables), "SHEAF_CAPACITY") && length(concat(lookup(local.who, "ecs:UpdateService", []), lookup(local.who, "ecs:ListTasks", []), lookup(local.who, "ecs:DescribeTasks", []))) == 0
    error_message = "It can be turned off: then the sweeper has no business with containers."
  }
}

run "share_of_on_demand" {
  command = apply
  variables {
    workers = { image = "registry.example.com/sheaf-worker:1", on_demand_share = 20 }
  }

  assert {
    condition     = { for strategy in module.workers[0].services.spot.capacity_provider_strategy : strategy.capacity_provider => strategy.weight } == { FARGATE_SPOT = 80, FARGATE = 20 }
    error_message = "Some of the spot lane can be had whatever the spot market does."
  }
}

run "fleet" {
  command = apply
  variables {
    workers = { image = "registry.example.com/sheaf-worker:1", capacity = "ec2" }
  }

  assert {
    condition = (
      module.workers[0].fleet.min_size == 0 && module.workers[0].fleet.desired_capacity == 0 && module.workers[0].fleet.capacity_rebalance && module.workers[0].fleet.protect_from_scale_in &&
      module.workers[0].fleet.mixed_instances_policy[0].instances_distribution[0].spot_allocation_strategy == "capacity-optimized-prioritized" &&
      module.workers[0].fleet.mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == 0 &&
      length(module.workers[0].fleet.mixed_instances_policy[0].launch_template[0].override) >= 3 && length(module.workers[0].fleet.vpc_zone_identifier) >= 2
    )
    error_message = "A fleet of several types in several zones, that begins with nothing."
  }
  assert {
    condition     = module.workers[0].tasks.spot.network_mode == "bridge" && module.workers[0].tasks["on-demand"].network_mode == "awsvpc"
    error_message = "Tasks of the fleet use their machine's address: there is no NAT."
  }
}
