# A fleet of spot instances of several types in all zones, for the spot lane when it runs on EC2. It begins with no instance.

locals {
  instance_types = coalesce(var.settings.instance_types, var.architecture == "arm64"
    ? ["c7g.xlarge", "c6g.xlarge", "m7g.xlarge", "m6g.xlarge", "c7g.2xlarge", "r7g.xlarge"]
    : ["c7a.xlarge", "c6a.xlarge", "c6i.xlarge", "m6a.xlarge", "m6i.xlarge", "c5.xlarge"]
  )
}

# Instances have the rights that the agent of ECS needs; those of the grid belong to the containers.
resource "aws_iam_role" "instance" {
  count = local.on_ec2 ? 1 : 0

  name        = "${var.grid}-instance"
  description = "Agent of ECS on the instances of the grid ${var.grid}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy_attachment" "instance" {
  count = local.on_ec2 ? 1 : 0

  role       = aws_iam_role.instance[0].name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "instance" {
  count = local.on_ec2 ? 1 : 0

  name = "${var.grid}-instance"
  role = aws_iam_role.instance[0].name
}

resource "aws_launch_template" "fleet" {
  #checkov:skip=CKV_AWS_88:A public address, with nothing coming in, instead of a NAT by the hour; public_ip = false where there are VPC endpoints
  count = local.on_ec2 ? 1 : 0

  name = "${var.grid}-fleet"
  # The newest image of Amazon Linux 2023 for ECS, looked up when an instance starts.
  image_id               = "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/${var.architecture == "arm64" ? "arm64/" : ""}recommended/image_id"
  update_default_version = true
  user_data = base64encode(<<-TEXT
    #!/bin/bash
    cat >>/etc/ecs/ecs.config <<'CONFIG'
    ECS_CLUSTER=${aws_ecs_cluster.this.name}
    ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
    ECS_CONTAINER_STOP_TIMEOUT=110s
    ECS_DISABLE_PRIVILEGED=true
    CONFIG
  TEXT
  )

  iam_instance_profile {
    arn = aws_iam_instance_profile.instance[0].arn
  }

  # One hop: behind the bridge, containers do not reach it.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  network_interfaces {
    associate_public_ip_address = var.settings.public_ip
    security_groups             = [aws_security_group.this.id]
    delete_on_termination       = true
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = max(30, var.settings.disk_gb)
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.key
      tags          = { Name = "${var.grid}-fleet", "sheaf:grid" = var.grid }
    }
  }
}

resource "aws_autoscaling_group" "fleet" {
  count = local.on_ec2 ? 1 : 0

  name                      = "${var.grid}-fleet"
  min_size                  = 0
  max_size                  = var.settings.instance_max
  desired_capacity          = 0
  vpc_zone_identifier       = local.subnets
  capacity_rebalance        = true
  protect_from_scale_in     = true
  health_check_grace_period = 120
  force_delete              = true

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = 0
      on_demand_percentage_above_base_capacity = var.settings.on_demand_share
      on_demand_allocation_strategy            = "prioritized"
      spot_allocation_strategy                 = "capacity-optimized-prioritized"
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.fleet[0].id
        version            = aws_launch_template.fleet[0].latest_version
      }
      dynamic "override" {
        for_each = local.instance_types
        content {
          instance_type = override.value
        }
      }
    }
  }

  tag {
    key                 = "sheaf:grid"
    value               = var.grid
    propagate_at_launch = true
  }
  # ECS sets it; without it here the next plan would take it away.
  tag {
    key                 = "AmazonECSManaged"
    value               = "true"
    propagate_at_launch = true
  }

  # The number of instances follows the containers.
  lifecycle {
    ignore_changes = [desired_capacity]
  }
}

resource "aws_ecs_capacity_provider" "fleet" {
  count = local.on_ec2 ? 1 : 0

  name = "${var.grid}-fleet"

  auto_scaling_group_provider {
    auto_scaling_group_arn = aws_autoscaling_group.fleet[0].arn
    # An instance with a container is not taken away to save, and is drained when it must go.
    managed_termination_protection = "ENABLED"
    managed_draining               = "ENABLED"

    managed_scaling {
      status                    = "ENABLED"
      target_capacity           = 100
      minimum_scaling_step_size = 1
      maximum_scaling_step_size = var.settings.instance_max
      instance_warmup_period    = 60
    }
  }
}
