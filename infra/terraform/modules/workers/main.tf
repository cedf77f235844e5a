# Containers for long tasks: a service per lane, each from nothing up to its maximum. How many there are is the scaler's to say
# (capacity.tf).

locals {
  on_ec2 = var.settings.capacity == "ec2"
  # A strategy names capacity of Fargate or of EC2, never of both.
  lanes = {
    spot = {
      max   = var.settings.spot_max
      takes = "spot"
      ec2   = local.on_ec2
      providers = local.on_ec2 ? { (one(aws_ecs_capacity_provider.fleet[*].name)) = 100 } : {
        for name, weight in { FARGATE_SPOT = 100 - var.settings.on_demand_share, FARGATE = var.settings.on_demand_share } : name => weight if weight > 0
      }
    }
    on-demand = {
      max = var.settings.on_demand_max
      # Also what waits for spot: so a deadline is kept that spot would miss.
      takes     = "on-demand,spot"
      ec2       = false
      providers = { FARGATE = 100 }
    }
  }
  # A lane that may have no container needs no service.
  services = { for lane, service in local.lanes : lane => service if service.max > 0 }
}

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:Container Insights costs by the metric; the workers tell what matters themselves
  name = var.grid

  setting {
    name  = "containerInsights"
    value = "disabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = concat(["FARGATE", "FARGATE_SPOT"], aws_ecs_capacity_provider.fleet[*].name)
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:Logs hold no payloads and no credentials; CloudWatch encrypts them with a key of its own
  #checkov:skip=CKV_AWS_338:How long logs are worth their price is the customer's to say: log_retention_days
  name              = "/aws/ecs/${var.grid}-worker"
  retention_in_days = var.log_retention_days
}

locals {
  environment = merge(
    var.environment,
    # Containers are kept from the metadata service: functions share their network.
    { SHEAF_METADATA = "" },
    var.settings.slots == null ? {} : { SHEAF_WORKER_SLOTS = tostring(var.settings.slots) },
  )
  tasks = {
    for lane, service in local.services : lane => {
      name      = "worker"
      image     = var.settings.image
      essential = true
      # The image names its own user too; this holds for any image.
      user                   = "10001:10001"
      readonlyRootFilesystem = true
      privileged             = false
      # The most that Fargate gives. Of the two minutes that a spot instance has, its agent takes some.
      stopTimeout     = 120
      environment     = [for name, value in merge(local.environment, { SHEAF_LANES = service.takes, SHEAF_STOP_S = service.ec2 ? "90" : "110" }) : { name = name, value = value }]
      mountPoints     = [{ sourceVolume = "scratch", containerPath = "/scratch", readOnly = false }]
      linuxParameters = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          "awslogs-group"         = aws_cloudwatch_log_group.this.name
          "awslogs-region"        = var.region
          "awslogs-stream-prefix" = lane
          mode                    = "non-blocking"
          "max-buffer-size"       = "4m"
        }
      }
    }
  }
}

resource "aws_ecs_task_definition" "this" {
  #checkov:skip=CKV_AWS_249:They differ; both come from modules, which the check does not follow
  for_each = local.services

  family                   = "${var.grid}-${each.key}"
  requires_compatibilities = [each.value.ec2 ? "EC2" : "FARGATE"]
  # Tasks of EC2 with addresses of their own would need a NAT; behind the bridge they use their machine's.
  network_mode       = each.value.ec2 ? "bridge" : "awsvpc"
  cpu                = var.settings.cpu
  memory             = var.settings.memory_mb
  task_role_arn      = module.task.arn
  execution_role_arn = module.execution.arn
  # The container's user must be able to write there.
  container_definitions = jsonencode([local.tasks[each.key]])

  volume {
    name = "scratch"
  }

  dynamic "ephemeral_storage" {
    for_each = each.value.ec2 ? [] : [var.settings.disk_gb]
    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.architecture)
  }
}

resource "aws_ecs_service" "this" {
  #checkov:skip=CKV_AWS_333:Public addresses, with nothing coming in, instead of a NAT by the hour; public_ip = false where there are VPC endpoints
  for_each = local.services

  name            = "${var.grid}-${each.key}"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this[each.key].arn
  desired_count   = 0
  force_delete    = true
  propagate_tags  = "SERVICE"
  # A chunk is held by one worker whatever happens, so that old and new may run side by side, or none.
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 200

  dynamic "capacity_provider_strategy" {
    for_each = each.value.providers
    content {
      capacity_provider = capacity_provider_strategy.key
      weight            = capacity_provider_strategy.value
    }
  }

  dynamic "network_configuration" {
    for_each = each.value.ec2 ? [] : [true]
    content {
      subnets          = local.subnets
      security_groups  = [aws_security_group.this.id]
      assign_public_ip = var.settings.public_ip
    }
  }

  # Follows the work: the scaler sets it.
  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_ecs_cluster_capacity_providers.this, module.task, module.execution]
}
