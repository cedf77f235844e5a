# Containers only call out. They have no ports, public addresses of their own unless there are VPC endpoints, and never a NAT.

data "aws_vpc" "default" {
  count   = var.settings.vpc_id == null ? 1 : 0
  default = true
}

data "aws_subnets" "default" {
  count = var.settings.subnet_ids == null ? 1 : 0

  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default[0].id]
  }
  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

locals {
  vpc     = coalesce(var.settings.vpc_id, one(data.aws_vpc.default[*].id))
  subnets = coalesce(var.settings.subnet_ids, one(data.aws_subnets.default[*].ids))
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5:The services and the launch template have it
  name        = "${var.grid}-workers"
  description = "Containers of the grid ${var.grid}: nothing comes in"
  vpc_id      = local.vpc
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.this.id
  description       = "The endpoints of AWS and the registry of the image"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}
